//! proxy-wasm 0.2.1 for Rust, without a crate: what the host offers, as safe functions.

/// A status that the host answers with; OK is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Status(u32);

pub const CAS_MISMATCH: Status = Status(8);
const OK: Status = Status(0);

pub type Result<T> = std::result::Result<T, Status>;

#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Action {
    Continue = 0,
    Pause = 1,
}

#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Level {
    Info = 2,
    Error = 4,
}

#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Map {
    RequestHeaders = 0,
    ResponseHeaders = 2,
    CallHeaders = 6,
}

#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallBody = 4,
    Configuration = 7,
}

mod env {
    use super::Status;

    #[link(wasm_import_module = "env")]
    extern "C" {
        pub fn proxy_log(level: u32, text: *const u8, size: usize) -> Status;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> Status;
        pub fn proxy_set_effective_context(context: u32) -> Status;
        pub fn proxy_get_property(path: *const u8, size: usize, value: *mut *mut u8, value_size: *mut usize) -> Status;
        pub fn proxy_get_header_map_value(map: u32, name: *const u8, size: usize, value: *mut *mut u8, value_size: *mut usize) -> Status;
        pub fn proxy_replace_header_map_value(map: u32, name: *const u8, size: usize, value: *const u8, value_size: usize) -> Status;
        pub fn proxy_remove_header_map_value(map: u32, name: *const u8, size: usize) -> Status;
        pub fn proxy_get_buffer_bytes(buffer: u32, start: usize, most: usize, bytes: *mut *mut u8, size: *mut usize) -> Status;
        pub fn proxy_set_buffer_bytes(buffer: u32, start: usize, replaced: usize, bytes: *const u8, size: usize) -> Status;
        #[allow(clippy::too_many_arguments)]
        pub fn proxy_send_local_response(
            code: u32, details: *const u8, details_size: usize, body: *const u8, body_size: usize, headers: *const u8, headers_size: usize, grpc: i32,
        ) -> Status;
        pub fn proxy_continue_stream(stream: u32) -> Status;
        pub fn proxy_get_shared_data(key: *const u8, size: usize, value: *mut *mut u8, value_size: *mut usize, cas: *mut u32) -> Status;
        pub fn proxy_set_shared_data(key: *const u8, size: usize, value: *const u8, value_size: usize, cas: u32) -> Status;
        pub fn proxy_http_call(
            service: *const u8, service_size: usize, headers: *const u8, headers_size: usize, body: *const u8, body_size: usize,
            trailers: *const u8, trailers_size: usize, milliseconds: u32, token: *mut u32,
        ) -> Status;
    }
}

/// The host asks for the memory that its answers are written to.
#[no_mangle]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut piece = std::mem::ManuallyDrop::new(Vec::<u8>::with_capacity(size));
    piece.as_mut_ptr()
}

#[no_mangle]
pub extern "C" fn proxy_abi_version_0_2_1() {}

fn check(status: Status) -> Result<()> {
    if status == OK { Ok(()) } else { Err(status) }
}

/// Takes over what a function has put into memory of proxy_on_memory_allocate's.
fn taken(call: impl FnOnce(*mut *mut u8, *mut usize) -> Status) -> Result<Vec<u8>> {
    let (mut at, mut size) = (std::ptr::null_mut(), 0);
    check(call(&mut at, &mut size))?;
    if at.is_null() {
        return Ok(Vec::new()); // what is empty needs no memory
    }
    Ok(unsafe { Vec::from_raw_parts(at, size, size) })
}

pub fn log(level: Level, text: &str) {
    unsafe { env::proxy_log(level as u32, text.as_ptr(), text.len()) };
}

pub fn tick_every(milliseconds: u32) -> Result<()> {
    check(unsafe { env::proxy_set_tick_period_milliseconds(milliseconds) })
}

/// Acts for another context: an Err says that it is over.
pub fn act_for(context: u32) -> Result<()> {
    check(unsafe { env::proxy_set_effective_context(context) })
}

/// The parts of a path are separated by zero bytes.
pub fn property(path: &str) -> Result<Vec<u8>> {
    taken(|at, size| unsafe { env::proxy_get_property(path.as_ptr(), path.len(), at, size) })
}

/// A field's value, None where there is no such field.
pub fn header(map: Map, name: &str) -> Option<String> {
    let value = taken(|at, size| unsafe { env::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), at, size) });
    value.ok().map(|v| String::from_utf8_lossy(&v).into_owned())
}

pub fn set_header(map: Map, name: &str, value: &str) -> Result<()> {
    check(unsafe { env::proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

pub fn remove_header(map: Map, name: &str) -> Result<()> {
    check(unsafe { env::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// The whole of a buffer.
pub fn buffer(buffer: Buffer) -> Result<Vec<u8>> {
    taken(|at, size| unsafe { env::proxy_get_buffer_bytes(buffer as u32, 0, usize::MAX >> 1, at, size) })
}

/// Puts bytes in the place of all that is in a buffer.
pub fn set_buffer(buffer: Buffer, bytes: &[u8]) -> Result<()> {
    check(unsafe { env::proxy_set_buffer_bytes(buffer as u32, 0, usize::MAX >> 1, bytes.as_ptr(), bytes.len()) })
}

pub fn answer(code: u32, details: &str, body: &str, headers: &[(&str, &str)]) -> Result<()> {
    let list = pairs(headers);
    check(unsafe {
        env::proxy_send_local_response(code, details.as_ptr(), details.len(), body.as_ptr(), body.len(), list.as_ptr(), list.len(), -1)
    })
}

pub fn continue_request() -> Result<()> {
    check(unsafe { env::proxy_continue_stream(0) })
}

/// A shared value, and which version of it that is.
pub fn shared(key: &str) -> Result<(Vec<u8>, u32)> {
    let mut version = 0;
    let value = taken(|at, size| unsafe { env::proxy_get_shared_data(key.as_ptr(), key.len(), at, size, &mut version) })?;
    Ok((value, version))
}

/// Stores a value if the version is still this one; 0: whatever it is.
pub fn set_shared(key: &str, value: &[u8], version: u32) -> Result<()> {
    check(unsafe { env::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version) })
}

/// Asks a service; the token is what on_http_call_response tells the answer by.
pub fn call(service: &str, headers: &[(&str, &str)], milliseconds: u32) -> Result<u32> {
    let (head, mut token) = (pairs(headers), 0);
    let (none, nothing) = (std::ptr::null(), 0);
    check(unsafe {
        env::proxy_http_call(service.as_ptr(), service.len(), head.as_ptr(), head.len(), none, nothing, none, nothing, milliseconds, &mut token)
    })?;
    Ok(token)
}

/// Headers as they travel: how many, the sizes, and the texts, each with a zero behind it.
fn pairs(list: &[(&str, &str)]) -> Vec<u8> {
    let mut all = (list.len() as u32).to_le_bytes().to_vec();
    for (name, value) in list {
        all.extend((name.len() as u32).to_le_bytes());
        all.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in list {
        for text in [name, value] {
            all.extend(text.as_bytes());
            all.push(0);
        }
    }
    all
}
