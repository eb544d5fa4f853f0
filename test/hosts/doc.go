// Package hosts makes several hosts of one machine, for tests that need a
// network which really fails.
//
//	h := hosts.New(t, 3)                      // a, b, c; skips where not root
//	p := h[0].Command(ctx, weir, "server", "--bootstrap")
//	p.Start()
//	h.Partition([]string{"a"}, []string{"b", "c"})
//	p.Kill9()
//	h.Heal()
//
// A host is a network namespace with a loopback, one interface and an address
// in 10.0.0.0/8. All interfaces end at a bridge in a namespace of its own, the
// switch, which is where faults are made: a packet that is cut is dropped
// there, in silence, as by a cable that was pulled. Processes share the file
// system and the process table of the machine; only their network is apart.
//
//	[ a  eth0 ]──veth──╮
//	[ b  eth0 ]──veth──┤ switch (bridge, nftables, tbf)
//	[ c  eth0 ]──veth──╯
//
// # Nothing leaks
//
// No namespace has a route out, and none of the interfaces is ever in the
// machine's own namespace. Namespaces have no names: descriptors and threads of
// the test process keep them alive, and processes inside are killed by the
// kernel when the thread that started them is gone. So a test that panics or is
// killed leaves nothing, and there is nothing to sweep. The one exception is
// what such a process has started itself: Kill9 and the end of the test reach
// it, but the kernel does not when the test is killed.
//
// # Faults
//
// Cuts, losses and blocked UDP add up until Heal lifts all of them. ARP always
// passes, so that a one-way cut stays one-way: otherwise the host that may
// still send would soon have nobody to send to. A fault that cannot be made
// fails the test but does not end it, so that faults may come from any
// goroutine.
//
// To look inside while a test runs: nsenter --net=/proc/PID/ns/net, with the
// PID of a process on that host.
package hosts
