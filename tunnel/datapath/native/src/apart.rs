//! Work on other cores, while the caller does something else.
//!
//! A thread lives for one piece of work and ends with it: a process may fork, move to another
//! namespace or give rights up whenever it has none under way.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

/// To start a thread costs as much as half of a handshake's work.
const ITEMS_PER_THREAD: usize = 2;
/// Fewer are done at once.
const ITEMS: usize = 3;
/// Threads at most: they are to answer a flood faster, not to fill a large machine with it.
const THREADS: usize = 4;

/// The results of some work on many items, in their order, or the threads that are at it.
pub struct Apart<R> {
    done: Vec<(usize, R)>,
    threads: Vec<JoinHandle<Vec<(usize, R)>>>,
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

impl<R: Send + 'static> Apart<R> {
    /// Begin with `work` on each of the items. A few are done on return.
    pub fn begin<T, W>(items: Vec<T>, work: W) -> Apart<R>
    where
        T: Send + 'static,
        W: Fn(T) -> R + Send + Sync + 'static,
    {
        let most = if items.len() < ITEMS {
            0
        } else {
            (cores() - 1)
                .min(THREADS)
                .min(items.len() / ITEMS_PER_THREAD)
        };
        let queue = Mutex::new(items.into_iter().enumerate());
        let run = Arc::new(move || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            std::iter::from_fn(next)
                .map(|(place, item)| (place, work(item)))
                .collect::<Vec<_>>()
        });
        let start = |_| {
            let run = Arc::clone(&run);
            thread::Builder::new().spawn(move || run()).ok()
        };
        let threads: Vec<_> = (0..most).map_while(start).collect();
        // Where the machine has no thread for us, this one does it all.
        let done = if threads.is_empty() {
            run()
        } else {
            Vec::new()
        };
        Apart { done, threads }
    }

    /// Wait for the results, and take them.
    pub fn take(&mut self) -> Vec<R> {
        for thread in self.threads.drain(..) {
            let done = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            self.done.extend(done);
        }
        self.done.sort_unstable_by_key(|&(place, _)| place);
        self.done.drain(..).map(|(_, result)| result).collect()
    }
}
