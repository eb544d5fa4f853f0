// Package powercut is a disk whose power can be cut: a FUSE file system in
// memory that keeps only what was synced.
//
//	disk := powercut.New(t, powercut.Options{Seed: 7})
//	run(ctx, "weir", "server", "--data", disk.Dir())
//	...
//	disk.Cut()      // while the process runs; all its files fail from now on
//	disk.Mount()    // the same directory, as it is found after a reboot
//
// # What survives
//
// Every file and directory has two states: how it is, which processes see, and
// how it is safe. Data goes from one to the other by fsync, fdatasync, msync or
// a write through a descriptor with O_SYNC; names do by fsync of their
// directory. Cut goes back to the safe state and then lets some of the rest
// survive, drawn by the seed, as a disk may have written anything on its own:
// each page alone, so that a write of several pages can be torn; the size and
// mode of each file; and each change of a name, unless an earlier change of
// the same name is lost. A rename is whole or not at all.
//
// That is stricter than common file systems, so that a program which passes
// relies on nothing but what POSIX promises. With Options.Journal names behave as
// on ext4 instead: any fsync makes all earlier changes of names safe, and a cut
// keeps them up to some point in time.
//
// sync(2) reaches no FUSE file system, so it makes nothing safe.
//
// # Reads through a mapping
//
// A mapping of a file sees what is written to it at once, and the reverse, as
// on any disk: the kernel's page cache serves both, and writes pass through it.
// After a cut, a mapping faults (SIGBUS) where it was not in memory.
//
// The file system lives in the test's own process. The process may read and
// write files on it, but must not map them: a goroutine that waits for a page
// keeps its processor, and the goroutines that would bring the page may need
// it. For the same reason it must not fork while it has such files open, nor
// start a process in a directory on the disk. Map and fork in another process.
package powercut
