// Package cluster tests a cluster as people run it: the weir program itself,
// several of it, on hosts of their own (package hosts), on disks that lose
// power (powercut), over lines that are slow (relay). Whatever happens to it,
// what clients saw must have been possible (linear).
//
//	c := form(t, 3, options{})
//	load := c.load()
//	leader := c.leader()
//	leader.kill()
//	load.goesOn()
//	leader.restart()
//	c.require(load)
//
// # What every scenario requires
//
// A load runs through all of it: clients on a host of their own who put,
// compare and set, read and create, each call at a member drawn at random. At
// the end, when what was broken is whole again, require demands that
//
//   - the history of all calls is linearizable, and so are the last reads, of
//     every key at every member;
//   - every member has, by its own state, the same resources, and each that
//     was acknowledged;
//   - no error was one that the API does not promise;
//   - no process has panicked, nor met a data race.
//
// # Running
//
// go test runs a few scenarios with a fixed seed; -all runs the others too.
// The seed decides what is broken and what clients do, not how the processes
// are scheduled: a seed that failed is likely to fail again, not sure to.
// make scenarios runs all of them for as long as it is told, each time with
// another seed.
//
// They build the program, unless WEIR_BIN names one, and skip where network
// namespaces or FUSE may not be made.
package cluster
