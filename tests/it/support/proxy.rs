//! What stands between a client and a server, and looks at or spoils what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use libtest_mimic::Failed;

/// Where bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What becomes of bytes.
pub enum Fate {
    Pass,
    /// So many of them pass, and then the connection is gone.
    Cut(usize),
}

/// Passes TCP connections on to a server. It ends with the process.
pub struct Proxy {
    /// Host and port.
    pub address: String,
}

impl Proxy {
    /// Before the server at `address`. `rule` sees all bytes as they come, with the number
    /// of their connection, and may take its time with them.
    pub fn before(
        address: &str,
        rule: impl Fn(usize, Way, &[u8]) -> Fate + Send + Sync + 'static,
    ) -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let proxy = Proxy { address: listener.local_addr()?.to_string() };
        let (address, rule) = (address.to_owned(), Arc::new(rule));
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let Ok(client) = client else { return };
                // A server that is not there has the client find nobody, either.
                let Ok(server) = TcpStream::connect(&address) else { continue };
                client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).ok();
                let both = client.try_clone().and_then(|up| Ok((up, server.try_clone()?)));
                let Ok((up, down)) = both else { continue };
                let (rule_up, rule_down) = (Arc::clone(&rule), Arc::clone(&rule));
                thread::spawn(move || {
                    copy(up, server, |bytes| rule_up(number, Way::ToServer, bytes))
                });
                thread::spawn(move || {
                    copy(down, client, |bytes| rule_down(number, Way::ToClient, bytes))
                });
            }
        });
        Ok(proxy)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, rule: impl Fn(&[u8]) -> Fate) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let (passed, is_cut) = match rule(&bytes[..read]) {
            Fate::Pass => (read, false),
            Fate::Cut(passed) => (passed, true),
        };
        let written = to.write_all(&bytes[..passed]);
        if is_cut {
            // Either end may be gone already.
            from.shutdown(Shutdown::Both).ok();
            to.shutdown(Shutdown::Both).ok();
            return;
        }
        if written.is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}
