//! The kernel side: programs that run at hooks of the kernel, one module per hook.
//!
//! Rules that the verifier enforces late and with long messages, so keep them while writing: no panic may remain
//! (`get`, never an index), and a bound that the compiler can prove has to stay visible to the verifier
//! (`core::hint::black_box` before the check).
#![no_std]
#![no_main]

mod metrics;
mod traffic;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: a program in which it could be is refused by the verifier.
    loop {}
}

/// What the kernel reads to decide which helpers the programs may call.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 7] = *b"GPL v2\0";
