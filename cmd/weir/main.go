// Command weir is all of Weir: the verbs that run a process (dev, server,
// edge) and those that speak to the admin API of a running one.
//
// Each verb has a file of its own. Main may be called by tests. The client
// verbs know the admin API alone; what they print on standard output is for
// scripts too, what they have to say beside it goes to standard error.
//
// Exit codes: 0 done, 1 refused or failed (for diff: there are differences),
// 2 usage.
package main

import "os"

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
