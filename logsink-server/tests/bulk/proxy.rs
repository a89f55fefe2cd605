//! A proxy in front of a real server that does to requests what networks and proxies do: loses them, answers, half answers.
//!
//! Only `_bulk` requests are harmed, unless it is said otherwise. Plain threads and blocking sockets, so that any test can have it. Other tests take it in
//! by its path.

#![allow(dead_code, reason = "each test that takes this in uses a part of it")]

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// What happens to a `_bulk`.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection breaks before the server has the request.
    LostRequest,
    /// The server carries it out; the connection breaks before the answer.
    LostAnswer,
    /// The server carries it out; half of the answer arrives.
    HalfAnswer,
    /// The server carries it out; something else comes as answer, with status 200.
    Nonsense(&'static str),
    /// The server carries it out; nothing comes for so long, and then the connection breaks.
    Silence(Duration),
    /// This instead of an answer; the server never sees the request.
    Answer(u16, &'static str),
    /// The answer is late.
    Late(Duration),
}

/// A connection of any kind.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Makes a connection of an accepted socket: TLS or none.
pub(crate) type Accept = Arc<dyn Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync>;

/// The proxy; it runs until the process ends.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
}

struct Plan {
    /// `host:port` of the server.
    server: String,
    /// What paths begin with here and not there.
    prefix: String,
    /// What the header `authorization` has to be.
    authorization: Option<String>,
    /// For the next requests, in turn.
    faults: VecDeque<Fault>,
    /// For all others.
    lasting: Option<Fault>,
    /// How many of the next other requests never arrive.
    lost: usize,
    /// `_bulk` requests that came.
    bulks: usize,
    /// `content-encoding` of the last of them.
    encoding: Option<String>,
}

struct Request {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Proxy {
    /// In front of the server at this URL.
    pub(crate) fn start(url: &str) -> Self {
        Self::start_with(url, Arc::new(|socket| Ok(Box::new(socket))))
    }

    /// The same, with connections as `accept` makes them.
    pub(crate) fn start_with(url: &str, accept: Accept) -> Self {
        let server = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let plan = Plan {
            server,
            prefix: String::new(),
            authorization: None,
            faults: VecDeque::new(),
            lasting: None,
            lost: 0,
            bulks: 0,
            encoding: None,
        };
        let proxy = Self { address: listener.local_addr().expect("an address"), plan: Arc::new(Mutex::new(plan)) };
        let plan = Arc::clone(&proxy.plan);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (plan, accept) = (Arc::clone(&plan), Arc::clone(&accept));
                // A connection that breaks is what this is for.
                thread::spawn(move || accept(socket).and_then(|stream| serve(&plan, stream)));
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.address, self.plan().prefix)
    }

    /// Paths have to begin so.
    pub(crate) fn behind(self, prefix: &str) -> Self {
        self.plan().prefix = prefix.into();
        self
    }

    /// Requests have to have this header; others are answered 401.
    pub(crate) fn authorize(&self, authorization: Option<&str>) {
        self.plan().authorization = authorization.map(str::to_owned);
    }

    /// What happens to the next `_bulk` requests, one after the other.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.plan().faults.extend(faults);
    }

    /// What happens to all of them until it is said otherwise.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        self.plan().lasting = fault;
    }

    /// The connection breaks before the server has so many of the next requests that are not `_bulk`.
    pub(crate) fn lose_questions(&self, count: usize) {
        self.plan().lost = count;
    }

    /// `_bulk` requests that came.
    pub(crate) fn bulks(&self) -> usize {
        self.plan().bulks
    }

    /// How the last one was compressed.
    pub(crate) fn encoding(&self) -> Option<String> {
        self.plan().encoding.clone()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("no test panics here")
    }
}

fn serve(plan: &Mutex<Plan>, stream: Box<dyn Stream>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read(&mut stream)? {
        let (server, fault) = {
            let mut plan = plan.lock().map_err(|_| io::ErrorKind::Other)?;
            let wanted = plan.authorization.clone();
            if wanted.is_some() && request.header("authorization") != wanted.as_deref() {
                answer(
                    stream.get_mut(),
                    401,
                    r#"{"error":{"type":"security_exception","reason":"who are you"},"status":401}"#,
                )?;
                continue;
            }
            let start = request.head[0].find('/').unwrap_or_default();
            if !request.head[0][start..].starts_with(&plan.prefix) {
                answer(stream.get_mut(), 404, "<html>no such place</html>")?;
                continue;
            }
            let end = start + plan.prefix.len();
            request.head[0].replace_range(start..end, "");
            let is_bulk = request.head[0].contains("/_bulk");
            if is_bulk {
                plan.bulks += 1;
                plan.encoding = request.header("content-encoding").map(str::to_owned);
            }
            let fault = if is_bulk {
                plan.faults.pop_front().or_else(|| plan.lasting.clone())
            } else {
                let is_lost = plan.lost > 0;
                plan.lost -= usize::from(is_lost);
                is_lost.then_some(Fault::LostRequest)
            };
            (plan.server.clone(), fault)
        };
        match fault {
            Some(Fault::LostRequest) => return Ok(()),
            Some(Fault::Answer(status, text)) => {
                answer(stream.get_mut(), status, text)?;
                continue;
            }
            _ => {}
        }
        let mut answered = pass_on(&server, &request)?;
        match fault {
            Some(Fault::LostAnswer) => return Ok(()),
            Some(Fault::Silence(time)) => {
                thread::sleep(time);
                return Ok(());
            }
            Some(Fault::HalfAnswer) => {
                answered.truncate(answered.len() / 2);
                stream.get_mut().write_all(&answered)?;
                return stream.get_mut().flush();
            }
            Some(Fault::Nonsense(text)) => {
                answer(stream.get_mut(), 200, text)?;
                continue;
            }
            Some(Fault::Late(time)) => thread::sleep(time),
            _ => {}
        }
        // The server was told to close, and its answer does not say so: a client would use this connection once more.
        let status_end = answered.windows(2).position(|two| two == b"\r\n").map_or(0, |at| at + 2);
        answered.splice(status_end..status_end, *b"connection: close\r\n");
        stream.get_mut().write_all(&answered)?;
        return stream.get_mut().flush();
    }
    Ok(())
}

fn read(stream: &mut BufReader<Box<dyn Stream>>) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let mut request = Request { head, body: Vec::new() };
    let length = request.header("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
    request.body = vec![0; length];
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The whole answer of the server, head and body, as it came.
fn pass_on(server: &str, request: &Request) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(server)?;
    let mut head = String::new();
    for line in &request.head {
        let name = line.split(':').next().unwrap_or_default();
        if !["connection", "authorization", "host"].iter().any(|other| name.eq_ignore_ascii_case(other)) {
            head.push_str(line);
            head.push_str("\r\n");
        }
    }
    head.push_str(&format!("host: {server}\r\nconnection: close\r\n\r\n"));
    socket.write_all(head.as_bytes())?;
    socket.write_all(&request.body)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}

fn answer(stream: &mut impl Write, status: u16, body: &str) -> io::Result<()> {
    let kind = if body.starts_with('{') { "application/json" } else { "text/html" };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} Fault\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")?;
    stream.flush()
}
