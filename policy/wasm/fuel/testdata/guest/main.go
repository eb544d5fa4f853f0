// A guest made by stock Go, to see what its compiler makes of loops, switches,
// maps, strings and the garbage collector.
package main

import (
	"sort"
	"strconv"
	"strings"
)

//go:wasmexport hash
func hash(n int32) int64 {
	h := uint64(14695981039346656037)
	buf := make([]byte, 64)
	for i := range n {
		buf[i%64] = byte(i)
		for _, b := range buf {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}
	return int64(h)
}

type item struct {
	name  string
	count int
}

//go:wasmexport text
func text(n int32) int64 {
	seen := map[string]*item{}
	for i := range int(n) * 50 {
		name := strings.Repeat("ab", i%7) + strconv.Itoa(i%100)
		it := seen[name]
		if it == nil {
			it = &item{name: name}
			seen[name] = it
		}
		it.count += kind(name)
	}
	var all []*item
	for _, it := range seen {
		all = append(all, it)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	sum := 0
	for i, it := range all {
		sum += i * it.count
	}
	return int64(sum)
}

func kind(s string) int {
	n := 0
	for i, c := range s {
		switch {
		case c == 'a' && i%2 == 0:
			n += 3
		case c == 'b':
			n++
		case '0' <= c && c <= '9':
			n += int(c - '0')
		default:
			n--
		}
	}
	return n
}

//go:wasmexport forever
func forever() {
	for {
	}
}

func main() {}
