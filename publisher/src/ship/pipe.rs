//! What can be read once and in order only: standard input, named pipes.
//!
//! The ids of its lines are those that a file with this content has. Which file
//! that is the registry is asked once enough is there: the window is full, or
//! the pipe has ended, or, where its writer pauses, what came differs from all
//! that could be meant. Until then nothing is sent.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;

use super::file::{self, READ_BYTES, TAKER};
use super::identity::{HEAD_BYTES, Identity, hex};
use super::registry::{Answer, Question, Scope};
use super::shared::Shared;
use super::stream::Stream;
use super::summary::Summary;
use super::text::TextDecoder;
use super::window::Window;
use crate::compression;

/// The wait for more before what is there is sent, in milliseconds.
const LINGER_MS: u64 = 200;
/// How long a pipe that pauses is held back because it is like a longer file so
/// far, in milliseconds; then it is taken for that one.
const UNDECIDED_MS: u64 = 2_000;
/// Pieces of [`READ_BYTES`] that are read ahead.
const READ_AHEAD: usize = 2;

/// What comes out of a pipe.
enum Piece {
    Content(Vec<u8>),
    /// Its writer has closed it, and the next one may open it.
    WriterGone,
    Failed(anyhow::Error),
}

/// Ships a pipe to its end.
///
/// # Errors
///
/// If it cannot be read or a request has no answer.
pub(crate) async fn ship(
    shared: &Shared,
    reader: impl Read + Send + 'static,
    topic: &str,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut pipe = Pipe::new(shared, read_in_thread(move |pieces| read_once(reader, &pieces))?);
    let scope = shared.scope(topic);
    let Some(mut stream) = pipe.begin(shared, scope, summary).await? else { return Ok(()) };
    let result = async {
        stream.flush(shared, summary).await?;
        while pipe.more(shared, &mut stream, summary).await? {}
        pipe.finish(shared, &mut stream, summary);
        stream.finish(shared, summary).await
    }
    .await;
    stream.abandon(summary);
    // To be stopped is the usual end of a pipe that is followed.
    if shared.stop.is_set() && !shared.options.follow {
        summary.interrupted = true;
        result.and(Err(anyhow!("interrupted after {} bytes", stream.offset_bytes())))
    } else {
        result
    }
}

/// Ships a named pipe through all its writers, until the run is to stop.
///
/// What they write is one stream, and another one in each run: nothing tells
/// a writer that repeats itself from one that is read again.
///
/// # Errors
///
/// If it cannot be read or a request has no answer.
pub(crate) async fn follow(
    shared: &Shared,
    path: &Path,
    topic: &str,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let (path, poll) = (path.to_owned(), shared.options.poll);
    let mut pipe = Pipe::new(shared, read_in_thread(move |pieces| read_all(&path, poll, &pieces))?);
    let salt = Some(hex(&rand::random::<[u8; 16]>()));
    let identity = Identity { salt, zone_bytes: Identity::ZONE_BYTES_MAX };
    let mut stream = Stream::new(shared, shared.scope(topic), Err(identity));
    let result = async {
        while pipe.more(shared, &mut stream, summary).await? {}
        pipe.finish(shared, &mut stream, summary);
        stream.finish(shared, summary).await
    }
    .await;
    stream.abandon(summary);
    result
}

/// A pipe that a thread reads, for a read may block for ever.
struct Pipe {
    pieces: Receiver<Piece>,
    text: TextDecoder,
}

impl Pipe {
    fn new(shared: &Shared, pieces: Receiver<Piece>) -> Self {
        Self { pieces, text: TextDecoder::new(shared.options.encoding) }
    }

    /// Reads until it is known what it is; nothing if there is nothing in it.
    async fn begin(
        &mut self,
        shared: &Shared,
        scope: Scope,
        summary: &mut Summary,
    ) -> anyhow::Result<Option<Stream>> {
        let mut stop = shared.stop.clone();
        let (mut content, mut text) = (Vec::new(), Vec::new());
        let mut window = Window::default();
        let mut ended = false;
        let mut undecided_until = None;
        let known = loop {
            let enough = window.is_full() || ended;
            let pause = Duration::from_millis(LINGER_MS);
            let deadline = undecided_until.unwrap_or_else(|| Instant::now() + pause);
            let paused = if enough {
                true
            } else {
                tokio::select! {
                    piece = self.pieces.recv() => {
                        match piece {
                            Some(Piece::Content(bytes)) => {
                                let begin = text.len();
                                self.text.push(&bytes, &mut text);
                                window.push(&text[begin..]);
                                content.extend(bytes);
                            }
                            Some(Piece::Failed(error)) => return Err(error),
                            Some(Piece::WriterGone) => {}
                            None => ended = true,
                        }
                        false
                    }
                    () = stop.wait() => { ended = true; false }
                    () = tokio::time::sleep_until(deadline), if content.len() >= HEAD_BYTES => true,
                }
            };
            if !paused {
                continue;
            }
            if ended {
                let begin = text.len();
                self.text.finish(&mut text);
                window.push(&text[begin..]);
            }
            if window.is_empty() && ended {
                summary.tally.hole_bytes += self.text.hole_bytes();
                break None;
            }
            if window.is_empty() {
                // Nothing but a hole so far.
                undecided_until = Some(Instant::now() + Duration::from_millis(UNDECIDED_MS));
                continue;
            }
            file::ensure_text(&content, shared.options.encoding)?;
            let overdue = undecided_until.is_some_and(|until| Instant::now() >= until);
            let question = Question::of(&scope).whole(enough || overdue);
            let asked = window.clone();
            match shared.identify(question, Box::new(move || Ok(asked)), summary).await {
                Some(Answer::Undecided) => {
                    undecided_until
                        .get_or_insert(Instant::now() + Duration::from_millis(UNDECIDED_MS));
                }
                Some(Answer::Known(known)) => break Some(Ok(known)),
                None => break Some(Err(Identity::of_head(window.head()))),
            }
        };
        let Some(known) = known else { return Ok(None) };
        let mut stream = Stream::new(shared, scope, known);
        stream.accept(shared, &content, &text, summary);
        Ok(Some(stream))
    }

    /// Ships what comes next; whether there may be more.
    async fn more(
        &mut self,
        shared: &Shared,
        stream: &mut Stream,
        summary: &mut Summary,
    ) -> anyhow::Result<bool> {
        let mut stop = shared.stop.clone();
        let linger = Duration::from_millis(LINGER_MS);
        let piece = tokio::select! {
            piece = self.pieces.recv() => piece,
            () = stop.wait() => None,
            () = tokio::time::sleep(linger), if stream.has_pending() => {
                stream.flush(shared, summary).await?;
                return Ok(true);
            }
        };
        match piece {
            Some(Piece::Content(content)) => {
                let mut text = Vec::new();
                self.text.push(&content, &mut text);
                stream.accept(shared, &content, &text, summary);
                stream.send_full(shared, summary).await?;
                Ok(true)
            }
            Some(Piece::WriterGone) => {
                self.finish(shared, stream, summary);
                self.text = TextDecoder::new(shared.options.encoding);
                stream.finish(shared, summary).await?;
                Ok(true)
            }
            Some(Piece::Failed(error)) => Err(error),
            None => Ok(false),
        }
    }

    /// Hands on what was held back of the text.
    fn finish(&mut self, shared: &Shared, stream: &mut Stream, summary: &mut Summary) {
        let mut text = Vec::new();
        self.text.finish(&mut text);
        stream.accept(shared, &[], &text, summary);
        summary.tally.hole_bytes += self.text.hole_bytes();
    }
}

/// Reads in a thread that nobody waits for: it ends with the process at the
/// latest.
fn read_in_thread(
    read: impl FnOnce(Sender<Piece>) + Send + 'static,
) -> anyhow::Result<Receiver<Piece>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let thread = std::thread::Builder::new().name("pipe".to_owned());
    thread.spawn(move || read(sender)).context("cannot start a thread")?;
    Ok(receiver)
}

/// Reads to the end, unpacking what is compressed.
fn read_once(reader: impl Read + Send + 'static, pieces: &Sender<Piece>) {
    let read =
        compression::unpacked(reader, TAKER).context("cannot read").and_then(|mut reader| {
            while let Some(content) = read_piece(&mut reader).context("cannot read")? {
                if pieces.blocking_send(Piece::Content(content)).is_err() {
                    break;
                }
            }
            Ok(())
        });
    if let Err(error) = read {
        let _ = pieces.blocking_send(Piece::Failed(error));
    }
}

/// Reads a named pipe again and again. It is kept open between two writers, so
/// that nothing is lost of one that comes and goes between two looks; but a
/// new pipe of that name is opened.
fn read_all(path: &Path, poll: Duration, pieces: &Sender<Piece>) {
    let read = || -> anyhow::Result<()> {
        loop {
            let mut pipe = file::open(path)?;
            loop {
                let mut written = false;
                while let Some(content) = read_piece(&mut pipe.file).context("cannot read")? {
                    written = true;
                    if pieces.blocking_send(Piece::Content(content)).is_err() {
                        return Ok(());
                    }
                }
                if written && pieces.blocking_send(Piece::WriterGone).is_err() {
                    return Ok(());
                }
                std::thread::sleep(poll);
                let same = path.metadata().is_ok_and(|now| file::key(path, &now) == pipe.key);
                if !same && path.exists() {
                    break;
                }
            }
        }
    };
    if let Err(error) = read() {
        let _ = pieces.blocking_send(Piece::Failed(error));
    }
}

fn read_piece(reader: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut content = vec![0; READ_BYTES];
    let read = file::read(reader, &mut content)?;
    content.truncate(read);
    Ok((read > 0).then_some(content))
}
