//! A connection between two pods that has to live through what a test does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use landbridge_lab::Host;

const PORT: u16 = 7000;
/// A lost segment is sent again after 200 ms; nothing that an agent does may cost a segment, let alone several.
const LONGEST_ROUND: Duration = Duration::from_secs(3);

/// One byte back and forth, again and again, until it is stopped.
pub(crate) struct PingPong {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    client: JoinHandle<Duration>,
    server: JoinHandle<()>,
}

impl PingPong {
    /// Connects `from` to `to`, which has `address`.
    pub(crate) fn start(from: &Host, to: &Host, address: Ipv4Addr) -> Self {
        let listener = to.inside(|| TcpListener::bind(SocketAddrV4::new(address, PORT))).unwrap().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() == 1 {
                stream.write_all(&byte).unwrap();
            }
        });
        let connect = || TcpStream::connect_timeout(&SocketAddrV4::new(address, PORT).into(), LONGEST_ROUND);
        let mut stream = from.inside(connect).unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONGEST_ROUND)).unwrap();
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = std::thread::spawn({
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            move || {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    stream.write_all(b"x").unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                    longest = longest.max(begin.elapsed());
                    rounds.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
                longest
            }
        });
        Self { stop, rounds, client, server }
    }

    /// Waits until it has gone back and forth some more.
    pub(crate) fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        crate::world::until("more rounds", || {
            (self.rounds.load(Ordering::Relaxed) > before + 20).then_some(())
        });
    }

    /// Ends it and returns the longest round.
    pub(crate) fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.client.join().unwrap();
        self.server.join().unwrap();
        longest
    }
}
