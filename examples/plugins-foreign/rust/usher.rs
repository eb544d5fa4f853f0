//! usher shows known people in: see ../README.md for what it does.
//!
//! Here in Rust without a crate: host.rs wraps what the host offers, and the callbacks
//! below are what it calls. A module is one thread, so what lasts stands in a thread's
//! own variable.

mod host;

use host::{Action, Buffer, Level, Map};
use std::cell::RefCell;
use std::collections::HashMap;

const PERIOD: u32 = 1000;
const PATIENCE: u32 = 2000;

#[derive(Default)]
struct Usher {
    service: String,
    guests: HashMap<u32, Guest>,
    /// Whose answers are awaited, by the calls' tokens.
    calls: HashMap<u32, u32>,
}

/// An exchange that is under way.
#[derive(Default)]
struct Guest {
    name: Option<String>,
    masked: bool,
}

thread_local! {
    static USHER: RefCell<Usher> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut Usher) -> T) -> T {
    USHER.with(|u| f(&mut u.borrow_mut()))
}

/// Adds one to a number that all sandboxes share. Who finds that another was quicker
/// does it again. A version of 0 would overwrite whatever is there, so the first one of
/// all sets 0 by another, and then competes like the others.
fn count(key: &str) -> host::Result<u64> {
    loop {
        let (old, version) = match host::shared(key) {
            Ok(found) => found,
            Err(_) => {
                let _ = host::set_shared(key, b"0", 1);
                host::shared(key)?
            }
        };
        let more = String::from_utf8_lossy(&old).parse().unwrap_or(0u64) + 1;
        match host::set_shared(key, more.to_string().as_bytes(), version) {
            Err(host::CAS_MISMATCH) => continue,
            done => return done.map(|()| more),
        }
    }
}

/// The text that a flat JSON object has under a name.
fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = object.split_once(&format!("\"{name}\""))?;
    let value = after.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    value.split_once('"').map(|(text, _)| text).filter(|text| !text.is_empty())
}

fn text(value: host::Result<Vec<u8>>) -> String {
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}

// The policy: a configuration, and a clock.

#[no_mangle]
pub extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> bool {
    // A panic ends as a trap, which has no words: they are logged before.
    std::panic::set_hook(Box::new(|why| host::log(Level::Error, &why.to_string())));
    true
}

#[no_mangle]
pub extern "C" fn proxy_on_configure(_root: u32, _size: usize) -> bool {
    let config = text(host::buffer(Buffer::Configuration));
    match member(&config, "service") {
        Some(service) => with(|u| u.service = service.to_string()),
        None => {
            host::log(Level::Error, "service: a name is wanted");
            return false;
        }
    }
    host::tick_every(PERIOD).is_ok()
}

#[no_mangle]
pub extern "C" fn proxy_on_tick(_root: u32) {
    let _ = count("usher.ticks");
}

// An exchange.

#[no_mangle]
pub extern "C" fn proxy_on_context_create(id: u32, parent: u32) {
    if parent != 0 {
        with(|u| u.guests.insert(id, Guest::default()));
    }
}

#[no_mangle]
pub extern "C" fn proxy_on_delete(id: u32) {
    with(|u| {
        u.guests.remove(&id);
        u.calls.retain(|_, of| *of != id);
    });
}

#[no_mangle]
pub extern "C" fn proxy_on_request_headers(id: u32, _fields: usize, end: bool) -> Action {
    if greet(id, end).is_err() {
        let _ = host::answer(503, "no_call", "nobody can say who you are\n", &[]);
    }
    Action::Pause
}

fn greet(id: u32, end: bool) -> host::Result<()> {
    let key = match host::header(Map::RequestHeaders, "x-key") {
        Some(key) => key,
        None => return host::answer(401, "no_key", "a key is wanted\n", &[("www-authenticate", "Key")]),
    };
    let service = with(|u| u.service.clone());
    let head = [(":method", "GET"), (":path", "/me"), (":authority", "users"), ("x-key", &key)];
    let token = host::call(&service, &head, PATIENCE)?;
    with(|u| u.calls.insert(token, id));
    host::remove_header(Map::RequestHeaders, "x-user")?; // what people say of themselves
    if !end {
        host::remove_header(Map::RequestHeaders, "content-length")?; // it may change
    }
    Ok(())
}

/// The answer comes to the policy, not to the exchange: whose it is, its token says.
#[no_mangle]
pub extern "C" fn proxy_on_http_call_response(_root: u32, token: u32, fields: usize, _size: usize, _trailers: usize) {
    let code = host::header(Map::CallHeaders, ":status");
    let name = text(host::buffer(Buffer::CallBody));
    let id = match with(|u| u.calls.remove(&token)) {
        Some(id) if host::act_for(id).is_ok() => id,
        _ => return, // it has ended meanwhile
    };
    let done = match code.as_deref() {
        _ if fields == 0 => host::answer(503, "no_answer", "nobody can say who you are\n", &[]),
        Some("200") => show_in(id, name),
        _ => host::answer(403, "unknown", "you are not known\n", &[]),
    };
    if let Err(status) = done {
        host::log(Level::Error, &format!("the host refuses: {status:?}"));
    }
}

fn show_in(id: u32, name: String) -> host::Result<()> {
    host::set_header(Map::RequestHeaders, "x-user", &name)?;
    host::set_header(Map::RequestHeaders, "x-visits", &count(&format!("usher.visits.{name}"))?.to_string())?;
    host::set_header(Map::RequestHeaders, "x-from", &text(host::property("source\0address")))?;
    with(|u| u.guests.entry(id).or_default().name = Some(name));
    host::continue_request()
}

/// A word may be cut between two chunks, so the whole body is kept and then changed.
#[no_mangle]
pub extern "C" fn proxy_on_request_body(_id: u32, _size: usize, end: bool) -> Action {
    if !end {
        return Action::Pause;
    }
    let body = host::buffer(Buffer::RequestBody).unwrap_or_default();
    let changed = without(&body, b"secret", b"[left out]");
    if changed.len() != body.len() {
        let _ = host::set_buffer(Buffer::RequestBody, &changed);
    }
    Action::Continue
}

/// Bodies need not be text.
fn without(body: &[u8], word: &[u8], instead: &[u8]) -> Vec<u8> {
    let (mut changed, mut rest) = (Vec::with_capacity(body.len()), body);
    while let Some(at) = rest.windows(word.len()).position(|w| w == word) {
        changed.extend(&rest[..at]);
        changed.extend(instead);
        rest = &rest[at + word.len()..];
    }
    changed.extend(rest);
    changed
}

#[no_mangle]
pub extern "C" fn proxy_on_response_headers(id: u32, _fields: usize, _end: bool) -> Action {
    let ticks = host::shared("usher.ticks").map_or("0".into(), |(value, _)| text(Ok(value)));
    let _ = host::set_header(Map::ResponseHeaders, "x-ticks", &ticks);
    let _ = host::set_header(Map::ResponseHeaders, "x-route", &text(host::property("route_name")));
    let kind = host::header(Map::ResponseHeaders, "content-type").unwrap_or_default();
    with(|u| u.guests.entry(id).or_default().masked = kind.starts_with("text/"));
    Action::Continue
}

/// A digit is a digit in every chunk: each is changed as it passes, and nothing is kept.
#[no_mangle]
pub extern "C" fn proxy_on_response_body(id: u32, size: usize, _end: bool) -> Action {
    if size > 0 && with(|u| u.guests.entry(id).or_default().masked) {
        let mut chunk = host::buffer(Buffer::ResponseBody).unwrap_or_default();
        chunk.iter_mut().filter(|b| b.is_ascii_digit()).for_each(|b| *b = b'#');
        let _ = host::set_buffer(Buffer::ResponseBody, &chunk);
    }
    Action::Continue
}

#[no_mangle]
pub extern "C" fn proxy_on_log(id: u32) {
    let name = with(|u| u.guests.entry(id).or_default().name.clone());
    let path = text(host::property("request\0path"));
    let code = host::property("response\0code").ok().and_then(|v| v.try_into().ok()).map_or(0, i64::from_le_bytes);
    host::log(Level::Info, &format!("{}: {path}, {code}", name.as_deref().unwrap_or("nobody")));
}
