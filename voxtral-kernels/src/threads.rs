//! The threads that share a kernel's work.
//!
//! A token of a large decoder is some three hundred parallel regions of 10 to 500 µs each. What a
//! region costs besides its work decides whether threads pay, so the workers of this pool wait for
//! the next region awake for a short while before they sleep, and the calling thread works along.
//! rayon, made for other work, needs 12 to 35 µs where the caller is not one of its own threads
//! (`cargo bench -p voxtral-kernels` measures both).
//!
//! One region runs at a time. Whoever finds the pool busy, a part of a region included, does its
//! work alone, so nothing ever waits for a thread that waits.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Multiplications that take as long as a parallel region saves (about 2 µs on one core).
const WORTH_A_REGION: usize = 1 << 16;

/// How long a worker waits awake for the next region.
const AWAKE: Duration = Duration::from_micros(100);

/// Looks at the gate between two looks at the clock, or between two turns given to others.
const LOOKS: usize = 64;

/// Set in the gate while workers may enter. The rest counts those that are inside.
const OPEN: usize = 1 << (usize::BITS - 1);

static POOL: OnceLock<Pool> = OnceLock::new();

/// The number of threads was asked for after the first product, which fixes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("number of threads is {found} since the first product, expected {expected} before it")]
pub struct ThreadsError {
    /// The threads that there are.
    pub found: usize,
    /// The threads that were asked for.
    pub expected: usize,
}

/// Fixes the number of threads that kernels run on, the caller included. Without it there are as
/// many as physical cores.
///
/// # Errors
///
/// [`ThreadsError`] if kernels run on another number already.
pub fn set_threads(threads: NonZeroUsize) -> Result<(), ThreadsError> {
    let (found, expected) = (POOL.get_or_init(|| Pool::new(threads.get())), threads.get());
    if found.threads == expected {
        return Ok(());
    }
    Err(ThreadsError {
        found: found.threads,
        expected,
    })
}

/// The threads that kernels run on, the caller included.
#[must_use]
pub fn threads() -> usize {
    pool().threads
}

/// As many threads as there are physical cores that this process may use: a second thread of a core
/// would share the units that products keep busy.
#[must_use]
pub fn physical_cores() -> usize {
    let usable = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    num_cpus::get_physical().clamp(1, usable)
}

/// Calls `part` for `0..parts`, on all threads if that many multiplications are worth it.
pub(crate) fn for_each_part(
    parts: usize,
    multiplications: usize,
    part: impl Fn(usize) + Send + Sync,
) {
    if parts <= 1 || multiplications <= WORTH_A_REGION {
        (0..parts).for_each(part);
    } else {
        pool().run(parts, &part);
    }
}

/// Calls `call` once on as many threads as kernels run on, all at the same time.
pub(crate) fn every_thread<T: Send>(call: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let started: Vec<_> = (0..threads()).map(|_| scope.spawn(&call)).collect();
        let ended = started.into_iter().map(|thread| thread.join());
        ended.filter_map(Result::ok).collect()
    })
}

fn pool() -> &'static Pool {
    POOL.get_or_init(|| Pool::new(physical_cores()))
}

struct Pool {
    threads: usize,
    /// Held by the thread whose region runs.
    region: Mutex<()>,
    gate: AtomicUsize,
    /// Written by the holder of `region` while the gate is closed and nobody is inside; read by
    /// those inside.
    job: UnsafeCell<Option<Job>>,
    /// The part to take next.
    next: AtomicUsize,
    /// What a worker's part panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Workers that sleep, counted under the lock that `wake` is used with.
    asleep: Mutex<usize>,
    wake: Condvar,
}

// SAFETY: `job` is the only field that is not `Sync`, and its comment says why it is not shared.
unsafe impl Sync for Pool {}
// SAFETY: a `Job` may be sent: it points to what is `Sync`.
unsafe impl Send for Pool {}

#[derive(Clone, Copy)]
struct Job {
    part: *const (dyn Fn(usize) + Sync),
    parts: usize,
}

impl Pool {
    fn new(threads: usize) -> Self {
        for i in 1..threads {
            let worker = thread::Builder::new().name(format!("voxtral-kernel-{i}"));
            // A thread that the system refuses is one that does not help.
            let _ = worker.spawn(|| pool().work());
        }
        Self {
            threads,
            region: Mutex::new(()),
            gate: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
        }
    }

    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        let Ok(_region) = self.region.try_lock() else {
            return (0..parts).for_each(part);
        };
        if self.threads == 1 {
            return (0..parts).for_each(part);
        }
        let part: *const (dyn Fn(usize) + Sync + '_) = part;
        // SAFETY: only the lifetime changes, and `Closing` lets nobody stay inside beyond this call.
        let part: *const (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(part) };
        let job = Job { part, parts };
        // SAFETY: the gate is closed, nobody is inside, and this thread holds `region`.
        unsafe { *self.job.get() = Some(job) };
        self.next.store(0, Ordering::Relaxed);
        self.gate.store(OPEN, Ordering::SeqCst);
        let closing = Closing(self);
        if *lock(&self.asleep) > 0 {
            self.wake.notify_all();
        }
        self.take_parts(job);
        drop(closing);
        if let Some(panic) = lock(&self.panic).take() {
            resume_unwind(panic);
        }
    }

    /// Computes parts until none is left.
    fn take_parts(&self, job: Job) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= job.parts {
                return;
            }
            // SAFETY: whoever takes parts is inside or opened the gate, so the closure lives.
            unsafe { (*job.part)(i) };
        }
    }

    /// The life of a worker.
    fn work(&self) {
        loop {
            self.wait();
            let enter = |gate| (gate & OPEN != 0).then_some(gate + 1);
            let entered = self
                .gate
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, enter);
            if entered.is_err() {
                continue;
            }
            // SAFETY: this thread is inside, so nobody writes the job.
            let job = unsafe { *self.job.get() };
            if let Some(job) = job {
                let taken = catch_unwind(AssertUnwindSafe(|| self.take_parts(job)));
                if let Err(panic) = taken {
                    *lock(&self.panic) = Some(panic);
                }
            }
            self.gate.fetch_sub(1, Ordering::Release);
            // The region is not over before its last part is: until then there is nothing to do, but
            // whoever computes that part may be waiting for this core.
            let mut looks = 0;
            while self.gate.load(Ordering::Relaxed) & OPEN != 0 && self.is_taken(job) {
                looks += 1;
                if looks % LOOKS == 0 {
                    thread::yield_now();
                }
                spin_loop();
            }
        }
    }

    fn is_taken(&self, job: Option<Job>) -> bool {
        job.is_some_and(|job| self.next.load(Ordering::Relaxed) >= job.parts)
    }

    /// Returns when the gate is open, or was.
    fn wait(&self) {
        let since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if self.gate.load(Ordering::Relaxed) & OPEN != 0 {
                    return;
                }
                spin_loop();
            }
            if since.elapsed() > AWAKE {
                break;
            }
        }
        let mut asleep = lock(&self.asleep);
        *asleep += 1;
        // The opener counts the sleepers after it has opened, so it is seen here or sees us.
        while self.gate.load(Ordering::SeqCst) & OPEN == 0 {
            asleep = self
                .wake
                .wait(asleep)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *asleep -= 1;
    }
}

/// Closes the gate and waits until everybody has left, also where a part of the caller's panics.
struct Closing<'a>(&'a Pool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let gate = &self.0.gate;
        gate.fetch_and(!OPEN, Ordering::Relaxed);
        let mut looks = 0;
        while gate.load(Ordering::Acquire) != 0 {
            looks += 1;
            if looks % LOOKS == 0 {
                // Whoever is inside may be waiting for this core.
                thread::yield_now();
            }
            spin_loop();
        }
    }
}

/// No value behind these locks is left half written by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use super::*;

    const MUCH: usize = usize::MAX;

    /// Every part once, in many regions, whoever calls them and however.
    #[test]
    fn every_part_is_computed_once() {
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for parts in (0..3000).map(|i| i % 37) {
                        let counts: Vec<AtomicU8> = (0..parts).map(|_| AtomicU8::new(0)).collect();
                        for_each_part(parts, MUCH, |i| {
                            // A region in a region.
                            for_each_part(2, MUCH, |_| {
                                counts[i].fetch_add(1, Ordering::Relaxed);
                            });
                        });
                        assert!(counts.into_iter().all(|count| count.into_inner() == 2));
                    }
                });
            }
        });
    }

    #[test]
    fn workers_that_slept_help_again() {
        for _ in 0..3 {
            thread::sleep(AWAKE * 20);
            let ids = Mutex::new(std::collections::HashSet::new());
            for_each_part(64, MUCH, |_| {
                lock(&ids).insert(thread::current().id());
                thread::sleep(Duration::from_millis(1));
            });
            // Another test may have the pool, but then it is this thread alone.
            assert!((1..=threads()).contains(&lock(&ids).len()));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        for bad in [0, 5, 63] {
            let result = catch_unwind(|| {
                for_each_part(64, MUCH, |i| {
                    thread::sleep(Duration::from_micros(100));
                    assert!(i != bad, "part {bad}");
                });
            });
            assert!(result.is_err());
            let count = AtomicUsize::new(0);
            for_each_part(64, MUCH, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 64);
        }
    }

    #[test]
    fn the_number_of_threads_is_fixed_by_the_first_use() {
        let found = threads();
        assert_eq!(set_threads(NonZeroUsize::new(found).unwrap()), Ok(()));
        let error = set_threads(NonZeroUsize::new(found + 1).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "number of threads is {found} since the first product, expected {} before it",
                found + 1
            )
        );
    }
}
