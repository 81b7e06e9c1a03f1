//! Only in the object that tests load: a tunnel without a tunnel, and bugs that the tests have to find.

use aya_ebpf::{Global, macros::map, maps::HashMap, programs::TcContext};
use landbridge_bpf_maps::{Address, Planted, ServiceEntry, ServiceKey};

/// What is planted, 0 for nothing. Frozen, so that the verifier removes the rest.
#[unsafe(no_mangle)]
static PLANTED: Global<u32> = Global::new(0);

/// `linux/bpf.h`
const BPF_NOEXIST: u64 = 1;

/// What each service was when it was asked for first.
#[map]
static STALE_SERVICES: HashMap<ServiceKey, ServiceEntry> = HashMap::with_max_entries(1 << 10, 0);

/// Whether this is planted.
#[inline(always)]
pub fn planted(what: Planted) -> bool {
    PLANTED.load() == what as u32
}

/// The tunnel key that a test tells in the packet's control block: the identity with its highest bit set, the address.
#[inline(always)]
pub fn tunnel(ctx: &TcContext) -> Option<(u32, Address)> {
    // SAFETY: the kernel gives every program of this kind a valid context.
    let [identity, a, b, c, d] = unsafe { (*ctx.skb.skb).cb };
    if identity >> 31 == 0 {
        return None;
    }
    let mut bytes = [0; 16];
    let (words, _) = bytes.as_chunks_mut::<4>();
    for (place, word) in words.iter_mut().zip([a, b, c, d]) {
        *place = word.to_ne_bytes();
    }
    Some((identity & (u32::MAX >> 1), Address(bytes)))
}

/// The service as it was when it was asked for first.
#[inline(always)]
pub fn stale(key: &ServiceKey, service: *mut ServiceEntry) -> Option<*mut ServiceEntry> {
    // SAFETY: the kernel keeps the entry while the program runs. One that is there already is left as it is.
    let _ = STALE_SERVICES.insert(key, unsafe { &*service }, BPF_NOEXIST);
    STALE_SERVICES.get_ptr_mut(key)
}
