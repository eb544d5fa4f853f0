// A plugin that compiles at once, to be exchanged thousands of times: it stamps
// answers, as the policy does whose place it takes.
//
//   clang-19 --target=wasm32 -O2 -nostdlib -Wl,--no-entry -o /tmp/small.wasm bench/sandbox/testdata/small/small.c
//   go run ./bench/sandbox -only swaps -swaps 10000 -module /tmp/small.wasm -config '{}'
__attribute__((import_module("env"), import_name("proxy_add_header_map_value")))
int add(int map, const char *name, int nameSize, const char *value, int valueSize);

#define EXPORT(name) __attribute__((export_name(#name))) int name

EXPORT(proxy_on_vm_start)(int root, int size) { return 1; }
EXPORT(proxy_on_configure)(int root, int size) { return 1; }
EXPORT(proxy_on_request_headers)(int stream, int headers, int end) { return 0; }
EXPORT(proxy_on_response_headers)(int stream, int headers, int end) {
  add(2, "x-stamped", 9, "yes", 3);
  return 0;
}
__attribute__((export_name("proxy_abi_version_0_2_1"))) void proxy_abi_version_0_2_1(void) {}
__attribute__((export_name("proxy_on_context_create"))) void proxy_on_context_create(int id, int parent) {}

static char heap[4096];
static int used;

__attribute__((export_name("proxy_on_memory_allocate"))) void *proxy_on_memory_allocate(int size) {
  if (used + size > (int)sizeof heap) used = 0;
  used += size;
  return heap + used - size;
}
