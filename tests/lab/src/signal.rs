//! Removes the labs of this process when it is told to end, since a signal runs no destructors.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Something that goes away when the process does.
pub(crate) trait Remove: Send + Sync {
    /// Removes it; called again when it is gone already.
    fn remove(&self);
}

static ENDING: AtomicBool = AtomicBool::new(false);

/// Whether the process was told to end. What fails from then on may fail because its lab is being removed.
pub fn is_ending() -> bool {
    ENDING.load(Ordering::Acquire)
}

/// Waits until the signal that the process got ends it, once its labs are removed.
pub fn wait_for_end() -> ! {
    loop {
        thread::park();
    }
}

type Registry = Mutex<Vec<Arc<dyn Remove>>>;

fn registry() -> &'static Registry {
    static REGISTRY: Registry = Mutex::new(Vec::new());
    &REGISTRY
}

/// Held while a lab begins: a signal waits for it to be [registered](register).
static BEGINNING: Mutex<()> = Mutex::new(());

/// Has a signal wait until a lab that begins is registered, or the guard goes out of use. Nothing if one came before.
pub(crate) fn begin() -> io::Result<Option<MutexGuard<'static, ()>>> {
    static WATCHING: OnceLock<Result<(), io::ErrorKind>> = OnceLock::new();
    (*WATCHING.get_or_init(|| watch().map_err(|error| error.kind())))?;
    let beginning = BEGINNING.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((!is_ending()).then_some(beginning))
}

/// Has `lab` removed on SIGINT, SIGTERM and SIGHUP, after which the signal ends the process as usual.
pub(crate) fn register(lab: Arc<dyn Remove>) {
    registry().lock().unwrap_or_else(PoisonError::into_inner).push(lab);
}

/// Forgets `lab`, which is gone or is kept.
pub(crate) fn forget(lab: &Arc<dyn Remove>) {
    registry().lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, lab));
}

fn watch() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let remove_all = move || {
        for signal in signals.forever() {
            ENDING.store(true, Ordering::Release);
            drop(BEGINNING.lock().unwrap_or_else(PoisonError::into_inner));
            let labs = registry().lock().unwrap_or_else(PoisonError::into_inner).clone();
            for lab in labs {
                lab.remove();
            }
            // Does not return: all three signals end a process that has no handler of its own.
            let _ = emulate_default_handler(signal);
        }
    };
    thread::Builder::new().name("lab-signals".to_owned()).spawn(remove_all)?;
    Ok(())
}
