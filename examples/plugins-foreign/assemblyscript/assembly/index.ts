// usher shows known people in: see ../../README.md for what it does.
//
// Here in AssemblyScript with @gcoredev/proxy-wasm-sdk-as, an SDK that is not Weir's: a
// RootContext is the policy, a Context an exchange.

export * from "@gcoredev/proxy-wasm-sdk-as/assembly/proxy";
import {
  BaseContext, BufferTypeValues, Context, FilterDataStatusValues, FilterHeadersStatusValues, Headers, LogLevelValues, RootContext,
  WasmResultValues, continue_request, get_buffer_bytes, get_property, get_shared_data, log, makeHeaderPair, registerRootContext,
  send_http_response, set_buffer_bytes, set_shared_data, set_tick_period_milliseconds, stream_context,
} from "@gcoredev/proxy-wasm-sdk-as/assembly";

const PERIOD: u32 = 1000;
const PATIENCE: u32 = 2000;
const WHOLE: u32 = 1 << 30; // more than any buffer has

function text(bytes: ArrayBuffer): string { return String.UTF8.decode(bytes); }

// count adds one to a number that all sandboxes share. Who finds that another was quicker
// does it again. A cas of 0 would overwrite whatever is there, so the first one of all
// sets 0 by another, and then competes like the others.
function count(key: string): string {
  let more = "";
  do {
    let old = get_shared_data(key);
    if (old.result != WasmResultValues.Ok) {
      set_shared_data(key, String.UTF8.encode("0"), 1);
      old = get_shared_data(key);
    }
    more = (U64.parseInt(text(old.value!)) + 1).toString();
    if (set_shared_data(key, String.UTF8.encode(more), old.cas) != WasmResultValues.CasMismatch) break;
  } while (true);
  return more;
}

// member is the text that a flat JSON object has under a name; empty: none.
function member(object: string, name: string): string {
  const at = object.indexOf('"' + name + '"');
  if (at < 0) return "";
  const value = object.substring(at + name.length + 2).trimStart();
  if (!value.startsWith(":")) return "";
  const quoted = value.substring(1).trimStart().split('"');
  return quoted.length > 2 && quoted[0] == "" ? quoted[1] : "";
}

function refuse(code: u32, why: string, body: string, headers: Headers): void {
  send_http_response(code, why, String.UTF8.encode(body), headers);
}

// The policy: a configuration, and a clock.
class Usher extends RootContext {
  service: string = "";

  createContext(id: u32): Context { return new Guest(id, this); }

  onConfigure(size: u32): bool {
    super.onConfigure(size);
    this.service = member(this.getConfiguration(), "service");
    if (this.service == "") {
      log(LogLevelValues.error, "service: a name is wanted");
      return false;
    }
    set_tick_period_milliseconds(PERIOD);
    return true;
  }

  onTick(): void { count("usher.ticks"); }
}

// An exchange.
class Guest extends Context {
  user: string = "nobody";
  masked: bool = false;

  onRequestHeaders(fields: u32, end: bool): FilterHeadersStatusValues {
    const request = stream_context.headers.request;
    const key = request.get("x-key");
    if (key == "") {
      refuse(401, "no_key", "a key is wanted\n", [makeHeaderPair("www-authenticate", "Key")]);
      return FilterHeadersStatusValues.StopIteration;
    }
    const head = [makeHeaderPair(":method", "GET"), makeHeaderPair(":path", "/me"), makeHeaderPair(":authority", "users"),
      makeHeaderPair("x-key", key)];
    const usher = this.root_context as Usher;
    // The answer is given to a function that knows nothing around it, hence `this`.
    const asked = usher.httpCall(usher.service, head, new ArrayBuffer(0), [], PATIENCE, this,
      (guest: BaseContext, fields: u32, size: usize, trailers: u32) => { (guest as Guest).answered(fields, size as u32); });
    if (asked != WasmResultValues.Ok) {
      refuse(503, "no_call", "nobody can say who you are\n", []);
      return FilterHeadersStatusValues.StopIteration;
    }
    request.remove("x-user"); // what people say of themselves
    if (!end) request.remove("content-length"); // it may change
    return FilterHeadersStatusValues.StopAllIterationAndWatermark;
  }

  answered(fields: u32, size: u32): void {
    const code = fields > 0 ? stream_context.headers.http_callback.get(":status") : "";
    if (code == "") return refuse(503, "no_answer", "nobody can say who you are\n", []);
    if (code != "200") return refuse(403, "unknown", "you are not known\n", []);
    this.user = text(get_buffer_bytes(BufferTypeValues.HttpCallResponseBody, 0, size));
    const request = stream_context.headers.request;
    request.replace("x-user", this.user);
    request.replace("x-visits", count("usher.visits." + this.user));
    request.replace("x-from", text(get_property("source\0address")));
    continue_request();
  }

  // A word may be cut between two chunks, so the whole body is kept and then changed.
  onRequestBody(size: usize, end: bool): FilterDataStatusValues {
    if (!end) return FilterDataStatusValues.StopIterationAndBuffer;
    const body = text(get_buffer_bytes(BufferTypeValues.HttpRequestBody, 0, size as u32));
    if (body.includes("secret")) set_buffer_bytes(BufferTypeValues.HttpRequestBody, 0, WHOLE, String.UTF8.encode(body.replaceAll("secret", "[left out]")));
    return FilterDataStatusValues.Continue;
  }

  onResponseHeaders(fields: u32, end: bool): FilterHeadersStatusValues {
    const response = stream_context.headers.response;
    const ticks = get_shared_data("usher.ticks");
    response.replace("x-ticks", ticks.result == WasmResultValues.Ok ? text(ticks.value!) : "0");
    response.replace("x-route", text(get_property("route_name")));
    this.masked = response.get("content-type").startsWith("text/");
    return FilterHeadersStatusValues.Continue;
  }

  // A digit is a digit in every chunk: each is changed as it passes, and nothing is kept.
  onResponseBody(size: usize, end: bool): FilterDataStatusValues {
    if (!this.masked || size == 0) return FilterDataStatusValues.Continue;
    const chunk = get_buffer_bytes(BufferTypeValues.HttpResponseBody, 0, size as u32);
    const bytes = Uint8Array.wrap(chunk);
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] >= 0x30 && bytes[i] <= 0x39) bytes[i] = 0x23;
    }
    set_buffer_bytes(BufferTypeValues.HttpResponseBody, 0, size as u32, chunk);
    return FilterDataStatusValues.Continue;
  }

  onLog(): void {
    const code = get_property("response\0code"); // 64 bits, the lowest first
    const n = code.byteLength == 8 ? load<i64>(changetype<usize>(code)) : 0;
    log(LogLevelValues.info, this.user + ": " + text(get_property("request\0path")) + ", " + n.toString());
  }
}

registerRootContext((id: u32) => new Usher(id), "usher");
