//! `publisher chaos`: kills the service at random moments of a load, again and
//! again, and audits what is left.
//!
//! A service may be several processes: replicas behind a balancer, and the database
//! that they share. Each kill ends one of them, whichever, and it is started again.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::client::Client;
use crate::load::{self, Kills, Run};
use crate::process::Service;
use crate::report::LoadReport;
use crate::report::load::Kill;
use crate::signal::Stop;

/// How long a service that was killed may take to be gone.
const GONE_WAIT_MAX: Duration = Duration::from_secs(10);
/// The interval at which that is polled.
const GONE_POLL: Duration = Duration::from_millis(5);

/// How to disturb.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The load to disturb, without an end of its own.
    pub load: load::Options,
    /// What starts the service, for the shell: a process, or several.
    pub commands: Vec<Command>,
    /// How often one of them is killed.
    pub kills: u32,
    /// The shortest and the longest time from when it is healthy to the kill.
    pub up: (Duration, Duration),
    /// How long it may take to become healthy.
    pub wait_for: Duration,
}

/// What starts a process.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// For the shell.
    pub line: String,
    /// Where its output goes.
    pub output: PathBuf,
}

impl Command {
    fn start(&self) -> anyhow::Result<Service> {
        Service::start(&self.line, &self.output)
    }
}

/// Starts the service, kills and restarts its processes under load, and audits the
/// load. `on_kill` is called after each kill, with its number.
///
/// # Errors
///
/// If the service cannot be started, does not become healthy, or a process of it ends
/// by itself; and as [`load::run`].
pub(crate) async fn run(
    client: Arc<Client>,
    options: Options,
    stop: Stop,
    on_kill: impl Fn(u32, &Kill),
) -> anyhow::Result<LoadReport> {
    // A balancer before several may listen, and then has nobody to ask.
    let is_one = options.commands.len() == 1;
    let is_there = match is_one {
        true => client.is_listening().await,
        false => client.is_healthy().await,
    };
    if is_there {
        bail!(
            "something listens at {} already: chaos starts the service itself, and kills only \
             what it started",
            client.url()
        );
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.load.plan.seed());
    let mut processes: Vec<Service> =
        options.commands.iter().map(Command::start).collect::<Result<_, _>>()?;
    let mut stopped = stop.clone();
    wait_until_healthy(&client, &mut processes, options.wait_for).await?;
    let mut up_since = Instant::now();

    let run = Run::start(Arc::clone(&client), options.load.clone(), stop.clone()).await?;
    let load = tokio::spawn({
        let run = Arc::clone(&run);
        async move { load::deliver(&run).await }
    });
    let mut kills = Vec::new();
    for number in 1..=options.kills {
        let (least, most) = options.up;
        let up = least + (most.saturating_sub(least)).mul_f64(rng.random());
        tokio::select! {
            () = tokio::time::sleep(up.saturating_sub(up_since.elapsed())) => {}
            exited = any_exited(&mut processes) => exited?,
            () = stopped.wait() => break,
        }
        if load.is_finished() {
            break;
        }
        let (acknowledged, under_way) = run.progress();
        let victim = rng.random_range(0..processes.len());
        let killed = Instant::now();
        processes[victim].kill().await?;
        if is_one {
            wait_until_gone(&client).await?;
        }
        processes[victim] = options.commands[victim].start()?;
        wait_until_healthy(&client, &mut processes, options.wait_for).await?;
        let kill = Kill {
            process: victim + 1,
            at_second: killed.duration_since(run.began()).as_secs_f64(),
            up_ms: killed.duration_since(up_since).as_secs_f64() * 1_000.0,
            acknowledged,
            under_way,
            down_ms: killed.elapsed().as_secs_f64() * 1_000.0,
        };
        up_since = Instant::now();
        on_kill(number, &kill);
        kills.push(kill);
    }
    run.stop_sending();
    load.await.context("the load died")??;
    let left = options.kills - u32::try_from(kills.len())?;
    let report = run.finish(Kills { done: kills, left }).await?;
    // What was started first is needed longest.
    for process in processes.iter_mut().rev() {
        process.terminate().await?;
    }
    Ok(report)
}

/// Waits until nobody listens any more: the leader of the group is dead, but
/// what it started may take a moment longer to die.
async fn wait_until_gone(client: &Client) -> anyhow::Result<()> {
    let killed = Instant::now();
    while client.is_listening().await {
        if killed.elapsed() > GONE_WAIT_MAX {
            bail!(
                "{} still answers after the service was killed: does the command start it \
                 outside of its process group?",
                client.url()
            );
        }
        tokio::time::sleep(GONE_POLL).await;
    }
    Ok(())
}

/// Waits until the service is healthy, also when the user has ended the run:
/// the audit needs it.
async fn wait_until_healthy(
    client: &Client,
    processes: &mut [Service],
    wait_for: Duration,
) -> anyhow::Result<()> {
    tokio::select! {
        healthy = client.wait_until_healthy(wait_for) => healthy,
        exited = any_exited(processes) => exited,
    }
}

/// Waits until one of the processes ends by itself, which it should not.
///
/// # Errors
///
/// Always, as [`Service::exited`].
async fn any_exited(processes: &mut [Service]) -> anyhow::Result<()> {
    let mut exits: Vec<Pin<Box<_>>> =
        processes.iter_mut().map(|process| Box::pin(process.exited())).collect();
    std::future::poll_fn(|context| {
        let mut polled = exits.iter_mut().map(|exit| exit.as_mut().poll(context));
        polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}
