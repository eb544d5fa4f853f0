/* usher shows known people in: see ../README.md for what it does.
 *
 * Here without an SDK, and without a library: proxy_wasm.h says what the host offers,
 * text.c is all the help there is. What a callback makes, and what the host returns to
 * it, lasts until the next one begins; what has to last longer stands in guests.
 */
#include "proxy_wasm.h"
#include "text.h"

void GUEST(proxy_abi_version_0_2_1)(void) {}
void *GUEST(proxy_on_memory_allocate)(size_t size) { return room(size); }

enum { ROOT = 1, PERIOD = 1000, PATIENCE = 2000, MOST = 256, NAME = 64 };

static char service[NAME];
static size_t service_size;

/* guests are the exchanges that are under way. */
static struct guest {
  uint32_t id, token; /* id 0: the place is free */
  bool masked;
  char name[NAME];
  size_t name_size;
} guests[MOST];

static struct guest *with(uint32_t id) {
  for (int i = 0; i < MOST; i++)
    if (guests[i].id == id) return &guests[i];
  return 0;
}

static void say(level l, text line) { proxy_log(l, IN(line)); }

static text field(map m, text name) {
  text value = {0};
  if (proxy_get_header_map_value(m, IN(name), OUT(value)) != OK) return (text){0};
  return value;
}

static text property(text path) {
  text value = {0};
  if (proxy_get_property(IN(path), OUT(value)) != OK) return (text){0};
  return value;
}

static void set(map m, text name, text value) { proxy_replace_header_map_value(m, IN(name), IN(value)); }

static action refuse(uint32_t code, text why, text body, text headers) {
  proxy_send_local_response(code, IN(why), IN(body), IN(headers), -1);
  return PAUSE;
}

/* count adds one to a number that all sandboxes share. Who finds that another was
 * quicker (CAS_MISMATCH) does it again. A cas of 0 would overwrite whatever is there, so
 * the first one of all sets 0 that way, and then competes like the others. */
static text count(text key) {
  for (;;) {
    text old = {0};
    uint32_t cas = 0;
    if (proxy_get_shared_data(IN(key), OUT(old), &cas) == NOT_FOUND) {
      proxy_set_shared_data(IN(key), "0", 1, 1);
      continue;
    }
    text more = decimal(number(old) + 1);
    if (proxy_set_shared_data(IN(key), IN(more), cas) != CAS_MISMATCH) return more;
  }
}

/* The policy: a configuration, and a clock. */

bool GUEST(proxy_on_configure)(uint32_t root, size_t size) {
  begin();
  text config = {0};
  proxy_get_buffer_bytes(CONFIGURATION, 0, size, OUT(config));
  text name = member(config, T("service"));
  if (name.size == 0 || name.size > NAME) {
    say(ERROR, T("service: a name is wanted"));
    return false;
  }
  __builtin_memcpy(service, name.at, service_size = name.size);
  proxy_set_tick_period_milliseconds(PERIOD);
  return true;
}

void GUEST(proxy_on_tick)(uint32_t root) {
  begin();
  count(T("usher.ticks"));
}

/* An exchange. */

void GUEST(proxy_on_context_create)(uint32_t id, uint32_t parent) {
  if (parent == 0) return; /* the policy itself */
  struct guest *g = with(0);
  if (g) *g = (struct guest){.id = id};
}

void GUEST(proxy_on_delete)(uint32_t id) {
  struct guest *g = with(id);
  if (g) g->id = 0;
}

action GUEST(proxy_on_request_headers)(uint32_t id, size_t n, bool end) {
  begin();
  text key = field(REQUEST_HEADERS, T("x-key"));
  if (key.size == 0) return refuse(401, T("no_key"), T("a key is wanted\n"), PAIRS(T("www-authenticate"), T("Key")));
  struct guest *g = with(id);
  if (!g) return refuse(503, T("full"), T("there are too many\n"), PAIRS());
  text head = PAIRS(T(":method"), T("GET"), T(":path"), T("/me"), T(":authority"), T("users"), T("x-key"), key);
  if (proxy_http_call(service, service_size, IN(head), 0, 0, 0, 0, PATIENCE, &g->token) != OK)
    return refuse(503, T("no_call"), T("nobody can say who you are\n"), PAIRS());
  proxy_remove_header_map_value(REQUEST_HEADERS, IN(T("x-user"))); /* what people say of themselves */
  if (!end) proxy_remove_header_map_value(REQUEST_HEADERS, IN(T("content-length"))); /* it may change */
  return PAUSE;
}

/* The answer comes to the policy, not to the exchange: whose it is, its token says. */
void GUEST(proxy_on_http_call_response)(uint32_t root, uint32_t token, size_t headers, size_t size, size_t trailers) {
  begin();
  struct guest *g = guests;
  while (g < guests + MOST && (!g->id || g->token != token)) g++;
  if (g == guests + MOST) return;
  text code = field(CALL_HEADERS, T(":status")), name = {0};
  proxy_get_buffer_bytes(CALL_BODY, 0, NAME, OUT(name));
  g->token = 0;
  if (proxy_set_effective_context(g->id) != OK) return; /* it has ended meanwhile */
  if (headers == 0) {
    refuse(503, T("no_answer"), T("nobody can say who you are\n"), PAIRS());
    return;
  }
  if (!same(code, T("200"))) {
    refuse(403, T("unknown"), T("you are not known\n"), PAIRS());
    return;
  }
  __builtin_memcpy(g->name, name.at, g->name_size = name.size);
  set(REQUEST_HEADERS, T("x-user"), name);
  set(REQUEST_HEADERS, T("x-visits"), count(JOIN(T("usher.visits."), name)));
  set(REQUEST_HEADERS, T("x-from"), property(T("source\0address")));
  proxy_continue_stream(REQUEST);
}

/* A word may be cut between two chunks, so the whole body is kept and then changed. */
action GUEST(proxy_on_request_body)(uint32_t id, size_t size, bool end) {
  if (!end) return PAUSE;
  begin();
  text body = {0}, word = T("secret"), left = T("[left out]");
  proxy_get_buffer_bytes(REQUEST_BODY, 0, size, OUT(body));
  size_t moved = 0; /* how much longer it has become, before i */
  for (size_t i = find(body, word, 0); i < body.size; i = find(body, word, i + word.size)) {
    proxy_set_buffer_bytes(REQUEST_BODY, i + moved, word.size, IN(left));
    moved += left.size - word.size;
  }
  return CONTINUE;
}

action GUEST(proxy_on_response_headers)(uint32_t id, size_t n, bool end) {
  begin();
  text ticks = {0};
  uint32_t cas;
  if (proxy_get_shared_data(IN(T("usher.ticks")), OUT(ticks), &cas) != OK) ticks = T("0");
  set(RESPONSE_HEADERS, T("x-ticks"), ticks);
  set(RESPONSE_HEADERS, T("x-route"), property(T("route_name")));
  struct guest *g = with(id);
  if (g) g->masked = starts(field(RESPONSE_HEADERS, T("content-type")), T("text/"));
  return CONTINUE;
}

/* A digit is a digit in every chunk: each is changed as it passes, and nothing is kept. */
action GUEST(proxy_on_response_body)(uint32_t id, size_t size, bool end) {
  struct guest *g = with(id);
  if (!g || !g->masked || size == 0) return CONTINUE;
  begin();
  text chunk = {0};
  proxy_get_buffer_bytes(RESPONSE_BODY, 0, size, OUT(chunk));
  for (size_t i = 0; i < chunk.size; i++)
    if (chunk.at[i] >= '0' && chunk.at[i] <= '9') chunk.at[i] = '#';
  proxy_set_buffer_bytes(RESPONSE_BODY, 0, size, IN(chunk));
  return CONTINUE;
}

void GUEST(proxy_on_log)(uint32_t id) {
  begin();
  struct guest *g = with(id);
  text code = property(T("response\0code")); /* 64 bits, the lowest first */
  uint64_t n = 0;
  if (code.size == sizeof n) __builtin_memcpy(&n, code.at, sizeof n);
  text name = g && g->name_size ? (text){g->name, g->name_size} : T("nobody");
  say(INFO, JOIN(name, T(": "), property(T("request\0path")), T(", "), decimal(n)));
}
