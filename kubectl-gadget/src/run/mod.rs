//! A run of a gadget: sessions with the agents of all nodes that it is about, one stream out of them, and its end.
//!
//! - [`targets`]: which agents those are
//! - [`nodes`]: all that take part; [`node`]: one node's sessions; [`conversation`] is one of them, over a [`connection`]
//! - [`allowance`]: how much an agent may send; [`inbox`]: what has come, on its way to the printing thread; [`merge`]: its order
//!
//! It ends by its timeout, by the user, or when nobody reads the output any more.

mod allowance;
pub(crate) mod connection;
pub(crate) mod conversation;
pub(crate) mod inbox;
pub(crate) mod merge;
mod node;
mod nodes;
pub(crate) mod targets;

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use gadgets::spec::RunSpec;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};

use crate::cluster::Cluster;
use crate::exit::End;
use crate::notice::notice;
use crate::output::{Output, Totals, screen};
use connection::Local;
use inbox::Inbox;
use nodes::{Nodes, Watched};
use targets::Wanted;

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// What is to be done.
pub(crate) struct Run {
    pub(crate) spec: RunSpec,
    /// Counts from when the gadget runs.
    pub(crate) timeout: Option<Duration>,
    pub(crate) fail_on_loss: bool,
    pub(crate) output: Output,
}

/// Where it is to be done.
pub(crate) enum Place {
    Local(Local),
    Cluster(Box<Cluster>, Wanted),
}

/// Runs a gadget and prints what comes.
///
/// # Errors
/// If no agent can be reached or can do it, if one could not, or if a stream is incomplete.
pub(crate) async fn run(place: Place, run: Run) -> anyhow::Result<End> {
    let inbox = Arc::new(Inbox::default());
    let Run { spec, timeout, fail_on_loss, output } = run;
    let _screen = LeaveScreen;
    let mut user = User::new(output.quit())?;
    let (printed, mut printing) = oneshot::channel();
    let printer = {
        let inbox = Arc::clone(&inbox);
        std::thread::spawn(move || {
            let totals = output.print(&inbox);
            let _ = printed.send(());
            totals
        })
    };

    let mut nodes = Nodes::new(spec, &inbox);
    let watched = tokio::select! {
        watched = nodes.watch(place, timeout, &mut user) => watched,
        // It ends early only if it cannot write; why is for its own result to say.
        _ = &mut printing => Ok(Watched::Ended),
    };
    if matches!(watched, Ok(Watched::Abandoned)) {
        inbox.abandon();
        return Ok(user.end);
    }
    inbox.close();
    tokio::select! {
        _ = &mut printing => {}
        // A reader that is stuck must not keep somebody who does not want to wait.
        () = user.asks() => return Ok(user.end),
    }
    let totals = join(printer)?;
    watched?;
    let Some(totals) = totals else { return Ok(End::Done) };
    if let Some(failure) = nodes.failure() {
        if user.end == End::Done {
            return Err(failure);
        }
        notice(&format!("warning: {failure:#}"));
    }
    if let Some(why) = totals.incomplete.as_ref().or(totals.broken.as_ref().filter(|_| user.end == End::Done)) {
        bail!("the stream is incomplete: {why}");
    }
    if user.end != End::Done {
        return Ok(user.end);
    }
    let is_lossy = fail_on_loss && totals.lost + totals.gaps > 0;
    Ok(if is_lossy {
        End::Lost
    } else if totals.is_refused {
        End::Refused
    } else {
        End::Done
    })
}

/// Gives the terminal back however a run ends.
struct LeaveScreen;

impl Drop for LeaveScreen {
    fn drop(&mut self) {
        screen::leave();
    }
}

/// What was printed; `None` if nobody reads it any more.
fn join(printer: JoinHandle<io::Result<Totals>>) -> anyhow::Result<Option<Totals>> {
    match printer.join().map_err(|_| anyhow!("the output failed"))? {
        Ok(totals) => Ok(Some(totals)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        // An advisor's own.
        Err(error) if error.kind() == io::ErrorKind::Other => Err(anyhow!(error)),
        Err(error) => Err(error).context("cannot write the output"),
    }
}

/// The person, or program, that started the run and may end it.
struct User {
    interrupted: Signal,
    terminated: Signal,
    quit: Arc<Notify>,
    /// The signal by which they ended it; [`End::Done`] if there was none.
    end: End,
}

impl User {
    fn new(quit: Arc<Notify>) -> anyhow::Result<Self> {
        let interrupted = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        Ok(Self { interrupted, terminated, quit, end: End::Done })
    }

    /// Waits until they ask for the end.
    async fn asks(&mut self) {
        let number = tokio::select! {
            _ = self.interrupted.recv() => SIGINT,
            _ = self.terminated.recv() => SIGTERM,
            () = self.quit.notified() => return,
        };
        self.end = End::Signal(number);
    }
}

/// Ends when nobody can read standard output any more, whether or not there is something to write.
async fn reader_gone() {
    let (gone, told) = oneshot::channel();
    std::thread::spawn(move || {
        let output = io::stdout();
        let mut polled = [PollFd::new(output.as_fd(), PollFlags::empty())];
        // Without flags, poll waits for errors alone. A file never has one, and then this waits for ever.
        while !matches!(poll(&mut polled, PollTimeout::NONE), Ok(1..)) {}
        let _ = gone.send(());
    });
    let _ = told.await;
}
