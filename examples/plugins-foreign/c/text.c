#include "text.h"

#define PAGE 65536

extern char __heap_base; /* where the linker's own memory ends */
static char *next;

void begin(void) { next = &__heap_base; }

void *room(size_t size) {
  if (!next) begin();
  char *piece = next;
  if (size > SIZE_MAX - (size_t)piece - 7) __builtin_trap();
  next += (size + 7) & ~(size_t)7;
  size_t have = __builtin_wasm_memory_size(0) * (size_t)PAGE;
  if ((size_t)next > have && __builtin_wasm_memory_grow(0, ((size_t)next - have + PAGE - 1) / PAGE) == (size_t)-1) __builtin_trap();
  return piece;
}

static char *append(char *to, text t) {
  __builtin_memcpy(to, t.at, t.size);
  return to + t.size;
}

text join(int n, const text *parts) {
  size_t size = 0;
  for (int i = 0; i < n; i++) size += parts[i].size;
  text all = {room(size), size};
  char *to = all.at;
  for (int i = 0; i < n; i++) to = append(to, parts[i]);
  return all;
}

int same(text a, text b) { return a.size == b.size && starts(a, b); }

int starts(text t, text with) {
  if (t.size < with.size) return 0;
  for (size_t i = 0; i < with.size; i++)
    if (t.at[i] != with.at[i]) return 0;
  return 1;
}

size_t find(text t, text word, size_t from) {
  for (; from + word.size <= t.size; from++)
    if (starts((text){t.at + from, t.size - from}, word)) return from;
  return t.size;
}

text decimal(uint64_t n) {
  char *end = (char *)room(20) + 20, *at = end;
  do *--at = '0' + n % 10;
  while (n /= 10);
  return (text){at, end - at};
}

uint64_t number(text t) {
  uint64_t n = 0;
  for (size_t i = 0; i < t.size && t.at[i] >= '0' && t.at[i] <= '9'; i++) n = n * 10 + (t.at[i] - '0');
  return n;
}

text member(text object, text name) {
  text quoted = JOIN(T("\""), name, T("\""));
  size_t i = find(object, quoted, 0) + quoted.size;
  while (i < object.size && (object.at[i] == ' ' || object.at[i] == ':')) i++;
  if (i >= object.size || object.at[i] != '"') return (text){0};
  size_t end = find(object, T("\""), ++i);
  return (text){object.at + i, end - i};
}

text pairs(int n, const text *list) {
  size_t size = 4;
  for (int i = 0; i < 2 * n; i++) size += 4 + list[i].size + 1;
  text all = {room(size), size};
  uint32_t *sizes = (uint32_t *)all.at;
  char *to = all.at + 4 + 8 * n;
  *sizes++ = n;
  for (int i = 0; i < 2 * n; i++) {
    *sizes++ = list[i].size;
    to = append(to, list[i]);
    *to++ = 0;
  }
  return all;
}

/* What compilers take for granted, also without a library. */
void *memcpy(void *restrict to, const void *restrict from, size_t n) {
  char *d = to;
  const char *s = from;
  while (n--) *d++ = *s++;
  return to;
}

void *memset(void *at, int value, size_t n) {
  char *d = at;
  while (n--) *d++ = (char)value;
  return at;
}
