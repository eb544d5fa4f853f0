package store

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Figures of one run on two cores that had other work beside it (load 4):
//
//	Watch/watchers=1        41 µs   one change, applied and received by all
//	Watch/watchers=1000    484 µs
//	ApplyAmong30000         67 µs   one changed route, in a batch of its own
//	Snapshot30000           13 ms   taken and streamed
//	Restore30000           288 ms   read, checked, stored and loaded

func crowd(n int) []*weirv1.Resource {
	all := []*weirv1.Resource{gateway("public", "http")}
	for i := range n / 2 {
		name := fmt.Sprintf("books-%d", i)
		all = append(all, service(name, "v1"), route(name, "public", to(name, "v1")))
	}
	return all
}

// BenchmarkWatch is from a change to the last of those who watch.
func BenchmarkWatch(b *testing.B) {
	for _, watchers := range []int{1, 1000} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			s := open(b)
			var received, ready sync.WaitGroup
			ready.Add(watchers)
			for range watchers {
				go func() {
					for event, err := range s.Watch(b.Context(), 0) {
						switch {
						case err != nil:
							return
						case event.Reset:
							ready.Done()
						default:
							received.Done()
						}
					}
				}()
			}
			ready.Wait()
			for i := 0; b.Loop(); i++ {
				received.Add(watchers)
				s.put(label(service("books"), "i", fmt.Sprint(i)))
				received.Wait()
			}
		})
	}
}

func BenchmarkApplyAmong30000(b *testing.B) {
	s := open(b)
	s.put(crowd(30_000)...)
	for i := 0; b.Loop(); i++ {
		s.put(label(route("books-77", "public", to("books-77", "v1")), "i", fmt.Sprint(i)))
	}
}

func BenchmarkSnapshot30000(b *testing.B) {
	s := open(b)
	s.put(crowd(30_000)...)
	for b.Loop() {
		b.SetBytes(int64(len(snapshot(b, s.Store))))
	}
}

func BenchmarkRestore30000(b *testing.B) {
	s := open(b)
	s.put(crowd(30_000)...)
	taken := snapshot(b, s.Store)
	b.SetBytes(int64(len(taken)))
	for b.Loop() {
		if err := s.Restore(bytes.NewReader(taken)); err != nil {
			b.Fatal(err)
		}
	}
}
