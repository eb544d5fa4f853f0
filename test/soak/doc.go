// Package soak keeps an edge under load for as long as it is told, with
// upstreams that die, hang, reset, crawl and talk nonsense, and clients of
// HTTP/1.1, HTTP/2 and WebSocket some of whom vanish in the middle.
//
// # What is required
//
//   - What a client gets is its own answer, or the beginning of it, or an error
//     that says so: never a byte of another's. So it is for what an upstream
//     gets.
//   - Once the upstreams are well again, so is everything.
//   - When the load ends there is no goroutine more than before it, no
//     descriptor and no memory: half the load leaves as much behind as all of
//     it.
//
// # Running
//
// go test runs it for some seconds with one seed. make soak FOR=5m SEED=7 runs
// it for longer. The seed decides what upstreams and clients do, not when.
package soak
