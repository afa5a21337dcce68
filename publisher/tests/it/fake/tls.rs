//! The same with TLS, and a proxy that tunnels.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::{Fake, serve_connection};

impl Fake {
    /// Answers with TLS as well, and speaks one of these protocols. Where, and the
    /// certificate that vouches for it.
    pub fn listen_with_tls(&self, protocols: &[&str]) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let state = Arc::clone(&self.state);
        let address = listen(move |stream| {
            let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_connection(stream, state).await;
                }
            }
        });
        (format!("https://{address}"), made.cert.pem())
    }
}

/// A proxy that opens a tunnel to whatever it is asked for.
pub struct Tunnel {
    pub url: String,
    connections: Arc<AtomicUsize>,
}

impl Tunnel {
    pub fn start() -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let address = listen(move |mut stream| {
            let counted = Arc::clone(&counted);
            async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
                let mut service = TcpStream::connect(target).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                copy_bidirectional(&mut stream, &mut service).await.ok();
            }
        });
        Self { url: format!("http://{address}"), connections }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Serves connections, in a thread, to a free port.
fn listen<Served: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> Served + Send + 'static,
) -> std::net::SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(stream));
            }
        });
    });
    address
}
