//! A line to the database on which one piece of SQL is replaced by another of the same length: a server whose statement lacks
//! a filter, without another server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// See the module.
pub struct Rewriting {
    count: Arc<AtomicUsize>,
    _running: JoinSet<()>,
}

impl Rewriting {
    /// The line before the database of a URL, and the URL through it.
    pub async fn before_database(
        url: &str,
        from: &'static str,
        to: &'static str,
    ) -> (Self, String) {
        let mut url = url::Url::parse(url).unwrap();
        let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port()))
            .unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let mut running = JoinSet::new();
        let counted = Arc::clone(&count);
        running.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (target, count) = (target.clone(), Arc::clone(&counted));
                lines.spawn(async move { forward(client, target, (from, to), &count).await });
            }
        });
        let proxy = Self {
            count,
            _running: running,
        };
        (proxy, url.to_string())
    }

    /// How often it was replaced.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

async fn forward(client: TcpStream, target: String, (from, to): (&str, &str), count: &AtomicUsize) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let asking = async {
        let mut buffer = vec![0_u8; 256 * 1024];
        while let Ok(read @ 1..) = client_read.read(&mut buffer).await {
            let bytes = &mut buffer[..read];
            while let Some(at) = bytes
                .windows(from.len())
                .position(|piece| piece == from.as_bytes())
            {
                bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
                count.fetch_add(1, Ordering::Relaxed);
            }
            if server_write.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    let answering = tokio::io::copy(&mut server_read, &mut client_write);
    tokio::select! {
        () = asking => {}
        _ = answering => {}
    }
}
