/* proxy_wasm.h: proxy-wasm 0.2.1 for C, without a library of any kind.
 *
 * What is declared with HOST is imported; what is declared with GUEST is exported under
 * its own name. A program leaves out what it does not want: the linker drops imports that
 * nobody calls, and a host does not call what is not exported.
 *
 * What a host function returns in a pair (char **, size_t *) it has put into memory that
 * it asked proxy_on_memory_allocate for.
 */
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOST(name) __attribute__((import_module("env"), import_name(#name))) extern status name
#define GUEST(name) __attribute__((export_name(#name))) name

typedef enum { OK, NOT_FOUND, BAD_ARGUMENT, CAS_MISMATCH = 8 } status;
typedef enum { CONTINUE, PAUSE } action;
typedef enum { TRACE, DEBUG, INFO, WARN, ERROR } level;
typedef enum { REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_TRAILERS, CALL_HEADERS = 6, CALL_TRAILERS } map;
typedef enum { REQUEST_BODY, RESPONSE_BODY, DOWNSTREAM_DATA, UPSTREAM_DATA, CALL_BODY, CONFIGURATION = 7 } buffer;
typedef enum { REQUEST, RESPONSE, DOWNSTREAM, UPSTREAM } stream;
typedef enum { PEER_UNKNOWN, PEER_LOCAL, PEER_REMOTE } peer;

HOST(proxy_log)(level, const char *text, size_t);
HOST(proxy_set_tick_period_milliseconds)(uint32_t period);
HOST(proxy_set_effective_context)(uint32_t context);
HOST(proxy_get_property)(const char *path, size_t, char **value, size_t *);

HOST(proxy_get_header_map_value)(map, const char *name, size_t, char **value, size_t *);
HOST(proxy_replace_header_map_value)(map, const char *name, size_t, const char *value, size_t);
HOST(proxy_remove_header_map_value)(map, const char *name, size_t);
HOST(proxy_get_buffer_bytes)(buffer, size_t start, size_t most, char **bytes, size_t *);
HOST(proxy_set_buffer_bytes)(buffer, size_t start, size_t replaced, const char *bytes, size_t);

HOST(proxy_send_local_response)(uint32_t code, const char *details, size_t, const char *body, size_t, const char *headers, size_t, int32_t grpc);
HOST(proxy_continue_stream)(stream);
HOST(proxy_close_stream)(stream);

HOST(proxy_get_shared_data)(const char *key, size_t, char **value, size_t *, uint32_t *cas);
HOST(proxy_set_shared_data)(const char *key, size_t, const char *value, size_t, uint32_t cas);
HOST(proxy_http_call)(const char *service, size_t, const char *headers, size_t, const char *body, size_t, const char *trailers, size_t,
                      uint32_t milliseconds, uint32_t *token);

#endif
