//! The kernel side: programs that run at hooks of the kernel, one module per place.
//!
//! ```text
//!  application ── sockets ──►  pod ══ veth ══► from_pod ─┬─► (a pod of this node) redirect_peer
//!                                    ◄── to_pod ◄─ stack ├─► to_overlay ══ VXLAN ══► from_overlay ─► redirect_peer
//!                                                        ├─► stack: this node
//!                                                        └─► to_uplink ══ direct, the world ══► from_uplink ─► redirect_peer
//! ```
//!
//! Services that no socket program translated are the matter of `service_steps`, with which the others go on.
//!
//! What decides is in `landbridge-bpf-verdict`; here are the kernel's maps and what is done to packets. A program is a
//! function that returns what becomes of the packet, or why it is dropped; its entry point counts both.
//!
//! Rules that the verifier enforces late and with long messages, so keep them while writing: no panic may remain
//! (`get`, never an index), and a bound that the compiler can prove has to stay visible to the verifier
//! (`core::hint::black_box` before the check).
#![no_std]
#![no_main]

mod config;
mod connections;
mod events;
mod frame;
mod known_flows;
mod masquerade;
mod metrics;
mod notice;
mod overlay;
mod pod;
mod rewrite;
mod service_steps;
mod services;
mod sockets;
mod steps;
mod tables;
mod translation;
#[cfg(feature = "trial")]
mod trial;
mod tunnel;
mod uplink;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: a program in which it could be is refused by the verifier.
    loop {}
}

/// What the kernel reads to decide which helpers the programs may call.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 7] = *b"GPL v2\0";
