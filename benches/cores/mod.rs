//! What runs where.

use rustix::thread::{CpuSet, sched_setaffinity};

/// This thread and all that it starts. A machine with one core only runs everything there.
pub(crate) fn run_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    let _ = sched_setaffinity(None, &cores);
}
