// A guest made by stock Go, to see what its compiler makes of loops, switches,
// maps, strings and the garbage collector.
package main

import (
	"encoding/json"
	"hash/fnv"
	"regexp"
	"strings"
)

//go:wasmexport hash
func hash(n int32) int64 {
	h := fnv.New64a()
	buf := make([]byte, 64)
	for i := range n {
		buf[i%64] = byte(i)
		h.Write(buf)
	}
	return int64(h.Sum64())
}

type item struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

//go:wasmexport text
func text(n int32) int64 {
	re := regexp.MustCompile(`(a+)(b|c)*d`)
	seen := map[string]int{}
	for i := range n {
		in := item{Name: strings.Repeat("ab", int(i%7)) + "d", Tags: []string{"x", "y"}}
		b, _ := json.Marshal(in)
		var out item
		_ = json.Unmarshal(b, &out)
		seen[re.FindString(out.Name)] += len(b)
	}
	sum := int64(0)
	for k, v := range seen {
		sum += int64(len(k) * v)
	}
	return sum
}

//go:wasmexport forever
func forever() {
	for {
	}
}

func main() {}
