//! Processes that MPI has started, on one machine or several: `mpirun -n 4 PROGRAM`.
//!
//! Feature `mpi`, which needs an MPI and libclang when it is built: on Debian and Ubuntu the
//! packages `libopenmpi-dev` (or `libmpich-dev`) and `libclang-dev`. All machines need one byte
//! order.
//!
//! ```no_run
//! use burn_contrastive::sharded::Sharding;
//! use burn_contrastive::workers::{Workers, mpi::Mpi};
//!
//! let workers = Mpi::start().expect("the program runs under mpirun");
//! let sharding = Sharding::keep(1).with_workers(workers.clone());
//! println!("worker {} of {}", workers.rank(), workers.count());
//! // … the steps …
//! workers.finish();
//! ```
//!
//! **If a process ends**, `mpirun` tells the others to end (SIGTERM) and kills them a second later.
//! [`Mpi::on_loss`] is what a program says in between.

use std::fmt;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::environment::Universe;
use mpi::request::{self, Request};
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use super::{Lost, Workers};

/// The longest message; longer ones go in pieces, since MPI counts elements in 32 bits.
const LONGEST: usize = 64 << 20;

/// How long a worker that was told to end waits for the others before it says which are missing,
/// and before it ends.
const GRACE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);

/// This process, as one of the workers that MPI has started.
pub struct Mpi {
    rank: usize,
    count: usize,
    /// Its lock is held while MPI is called: one thread at a time.
    universe: Mutex<Option<Universe>>,
    on_loss: Mutex<Option<OnLoss>>,
}

/// Asked whether to end, and called before that.
type OnLoss = (Box<dyn Fn() -> bool + Send>, Box<dyn Fn(&Lost) + Send>);

/// Requests, each with the worker that it receives from, if it does.
type Pending<'a, S> = Vec<(Option<usize>, Request<'a, [u8], S>)>;

impl Mpi {
    /// Starts MPI for this process: once, before any exchange. A program that was not started by
    /// `mpirun` is one worker alone.
    ///
    /// # Errors
    ///
    /// If MPI has been started already, or does not allow calls from several threads one after the
    /// other.
    pub fn start() -> Result<Arc<Self>, MpiError> {
        let (universe, threading) =
            mpi::initialize_with_threading(Threading::Serialized).ok_or(MpiError::Started)?;
        if threading < Threading::Serialized {
            return Err(MpiError::Threads);
        }
        let world = universe.world();
        Ok(Arc::new(Self {
            rank: world.rank() as usize,
            count: world.size() as usize,
            universe: Mutex::new(Some(universe)),
            on_loss: Mutex::new(None),
        }))
    }

    /// What to say if a worker is lost. While this worker waits for others it asks `stopped`, which
    /// should be true once the process was told to end. If they are still missing 0.3 s later, it
    /// calls `report` with them, and if that lasts for 30 s, it ends the process with status 1.
    pub fn on_loss(
        &self,
        stopped: impl Fn() -> bool + Send + 'static,
        report: impl Fn(&Lost) + Send + 'static,
    ) {
        *lock(&self.on_loss) = Some((Box::new(stopped), Box::new(report)));
    }

    /// Waits for all workers and ends MPI; nothing can be exchanged after it. A process that ends
    /// without it tells `mpirun` that it failed.
    pub fn finish(&self) {
        // Waits for the others.
        drop(lock(&self.universe).take());
    }

    /// Sends a message to, and receives one from each other worker; `received` has the lengths.
    fn send_and_receive(&self, parts: &[&[u8]], received: &mut [Vec<u8>]) {
        let world = SimpleCommunicator::world();
        request::scope(|scope| {
            let mut pending = Vec::new();
            for (rank, buffer) in received.iter_mut().enumerate() {
                if rank == self.rank {
                    buffer.copy_from_slice(parts[rank]);
                    continue;
                }
                let process = world.process_at_rank(rank as i32);
                for piece in buffer.chunks_mut(LONGEST) {
                    let request = process.immediate_receive_into(scope, piece);
                    pending.push((Some(rank), request));
                }
            }
            for (rank, part) in parts.iter().enumerate() {
                if rank == self.rank {
                    continue;
                }
                let process = world.process_at_rank(rank as i32);
                for piece in part.chunks(LONGEST) {
                    pending.push((None, process.immediate_send(scope, piece)));
                }
            }
            self.wait(pending);
        });
    }

    /// Waits for all requests.
    fn wait<'a, S: request::Scope<'a>>(&self, mut pending: Pending<'a, S>) {
        let mut rounds = 0_u32;
        let (mut told, mut reported): (Option<Instant>, bool) = (None, false);
        loop {
            let ready = |(rank, request): (_, Request<'a, [u8], S>)| {
                request.test().err().map(|request| (rank, request))
            };
            pending = pending.into_iter().filter_map(ready).collect();
            if pending.is_empty() {
                return;
            }
            if told.is_none() && self.is_stopped() {
                told = Some(Instant::now());
            }
            let since_told = told.map_or(Duration::ZERO, |told| told.elapsed());
            if since_told > GRACE && !reported {
                reported = true;
                let mut ranks: Vec<_> = pending.iter().filter_map(|(rank, _)| *rank).collect();
                ranks.dedup();
                self.report(ranks);
            }
            if since_told > PATIENCE {
                process::exit(1);
            }
            // Short waits cost no sleep, long ones no core.
            rounds += 1;
            if rounds < 1000 {
                thread::yield_now();
            } else {
                thread::sleep(Duration::from_micros(100));
            }
        }
    }

    fn is_stopped(&self) -> bool {
        let on_loss = lock(&self.on_loss);
        on_loss.as_ref().is_some_and(|(stopped, _)| stopped())
    }

    fn report(&self, ranks: Vec<usize>) {
        let count = self.count;
        if let Some((_, report)) = &*lock(&self.on_loss) {
            report(&Lost { ranks, count });
        }
    }
}

impl Workers for Mpi {
    fn count(&self) -> usize {
        self.count
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>, Lost> {
        assert!(
            parts.len() == self.count,
            "Workers: {} parts for {} workers",
            parts.len(),
            self.count
        );
        let universe = lock(&self.universe);
        assert!(universe.is_some(), "Mpi: exchange after `finish`");
        let lengths: Vec<_> = parts
            .iter()
            .map(|part| (part.len() as u64).to_ne_bytes())
            .collect();
        let lengths: Vec<&[u8]> = lengths.iter().map(<[u8; 8]>::as_slice).collect();
        let mut received = vec![vec![0; 8]; self.count];
        self.send_and_receive(&lengths, &mut received);
        let length = |bytes: &Vec<u8>| {
            let bytes = bytes[..].try_into().expect("eight bytes");
            u64::from_ne_bytes(bytes) as usize
        };
        let mut received: Vec<_> = received.iter().map(|x| vec![0; length(x)]).collect();
        self.send_and_receive(parts, &mut received);
        Ok(received)
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // Ending MPI waits for the others, in vain where this process fails.
        std::mem::forget(lock(&self.universe).take());
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi")
            .field("rank", &self.rank)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Why MPI did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MpiError {
    /// It was started before.
    Started,
    /// It does not allow calls from several threads, one after the other.
    Threads,
}

impl fmt::Display for MpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "MPI has been started in this process before",
            Self::Threads => {
                "this MPI does not allow calls from several threads one after the other: it \
                 needs a build with MPI_THREAD_SERIALIZED"
            }
        })
    }
}

impl std::error::Error for MpiError {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
