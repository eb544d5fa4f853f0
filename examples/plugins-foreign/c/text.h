/* text.h: pieces of text, and a place for those that one callback makes. */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  char *at;
  size_t size;
} text;

#define T(literal) ((text){literal, sizeof(literal) - 1})
#define IN(t) (t).at, (t).size   /* as two arguments */
#define OUT(t) &(t).at, &(t).size /* as two results */

/* begin empties the place: whatever the callback before made is gone. */
void begin(void);
/* room gives memory that lasts until the next begin. */
void *room(size_t size);

text join(int n, const text *parts);
#define JOIN(...) join(sizeof((text[]){__VA_ARGS__}) / sizeof(text), (text[]){__VA_ARGS__})

int same(text a, text b);
int starts(text t, text with);
/* find is where a word begins in a text, from there on; t.size: nowhere. */
size_t find(text t, text word, size_t from);

text decimal(uint64_t n);
uint64_t number(text t);

/* member is the text that a flat JSON object has under a name; empty: none. */
text member(text object, text name);

/* pairs are headers as the host wants them: name, value, name, value, … */
text pairs(int n, const text *list);
#define PAIRS(...) pairs(sizeof((text[]){__VA_ARGS__}) / sizeof(text) / 2, (text[]){__VA_ARGS__})

#endif
