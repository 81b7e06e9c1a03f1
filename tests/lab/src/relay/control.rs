//! What a relay is told and what it answers, also as lines of JSON on the control socket of a relay process.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};

use super::Direction;
use super::channel::{ChannelCounters, Impairment};
use super::engine::Engine;
use crate::error::{IoContext, LabError};

/// A client that is silent for longer makes room for the next.
const CLIENT_DEADLINE: Duration = Duration::from_secs(2);

/// A relay answers at once unless it is stopped.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// What a relay is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Changes one direction.
    Set(Direction, Impairment),
    /// Changes nothing.
    Report,
    /// Ends the relay, which gives the link back to the kernel.
    Stop,
}

impl Command {
    /// Whether a link without a relay is as the command wants it.
    pub(crate) fn is_idle(self) -> bool {
        match self {
            Self::Set(_, impairment) => impairment == Impairment::NONE,
            Self::Report | Self::Stop => true,
        }
    }
}

/// What a relay answers to each command: how its two directions are set, and what they did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayCounters {
    /// What is done to frames that leave the node or the cluster.
    pub outbound: Impairment,
    /// What became of them.
    pub outbound_frames: ChannelCounters,
    /// What is done to frames that go to the node or the cluster.
    pub inbound: Impairment,
    /// What became of them.
    pub inbound_frames: ChannelCounters,
}

impl RelayCounters {
    /// Whether the relay has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbound == Impairment::NONE && self.inbound == Impairment::NONE
    }

    /// What became of the frames of a direction.
    pub fn of(&self, direction: Direction) -> ChannelCounters {
        match direction {
            Direction::Outbound => self.outbound_frames,
            Direction::Inbound => self.inbound_frames,
        }
    }
}

/// A command with the way back for its answer.
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) answer: mpsc::Sender<RelayCounters>,
}

/// Sends a command to a relay process; `None` if none runs.
///
/// # Errors
/// [`LabError::TimedOut`] if it does not answer, [`LabError::Relay`] if it answers nonsense.
pub(crate) fn ask(socket: &Path, link: &str, command: Command) -> Result<Option<RelayCounters>, LabError> {
    let failed = |reason: String| LabError::Relay { link: link.to_owned(), reason };
    let mut connection = match UnixStream::connect(socket) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        outcome => outcome.context(|| format!("connect to {}", socket.display()))?,
    };
    let relay = socket_peercred(&connection).map_or(0, |credentials| credentials.pid.as_raw_nonzero().get());
    let mut answer = String::new();
    let mut message = serde_json::to_vec(&command).expect("a command has only names and numbers");
    message.push(b'\n');
    let asked = connection
        .set_read_timeout(Some(ANSWER_DEADLINE))
        .and_then(|()| connection.set_write_timeout(Some(ANSWER_DEADLINE)))
        .and_then(|()| connection.write_all(&message))
        .and_then(|()| BufReader::new(connection).read_line(&mut answer));
    match asked {
        // It died with the question unanswered.
        Ok(0) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            let what = format!("an answer of the relay of link {link}, process {relay} (is it stopped?)");
            Err(LabError::TimedOut { what, seconds: ANSWER_DEADLINE.as_secs() })
        }
        Err(error) => Err(failed(error.to_string())),
        Ok(_) => {
            let counters = serde_json::from_str(&answer);
            counters.map(Some).map_err(|error| failed(format!("it answered {answer:?}: {error}")))
        }
    }
}

/// Passes the commands that come over `listener` on to `engine`, until one of them stops it.
pub(crate) fn serve(listener: &UnixListener, engine: &Engine) -> Result<(), LabError> {
    loop {
        let (stream, _) = listener.accept().context(|| "accept a control connection".to_owned())?;
        // A client that sends nonsense or goes away in the middle of a line harms nobody but itself.
        let Some(command) = read_command(&stream) else { continue };
        let stopping = matches!(command, Command::Stop);
        let counters = if stopping { engine.stop()? } else { engine.ask(command)? };
        let mut line = serde_json::to_vec(&counters).expect("counters are names and numbers");
        line.push(b'\n');
        let _ = (&stream).write_all(&line);
        if stopping {
            return Ok(());
        }
    }
}

fn read_command(stream: &UnixStream) -> Option<Command> {
    stream.set_read_timeout(Some(CLIENT_DEADLINE)).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}
