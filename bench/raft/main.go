// Command raft measures how many writes a second a cluster agrees on: Weir's,
// through its admin API and, in this process, its log alone; and etcd's, where
// it is installed (make bench-peers).
//
//	clients, each one write at a time ─▶ a member ─▶ all members' disks
//
// All members run on this machine and keep their data on the same disk, side by
// side. What is written are values of 512 bytes under 10,000 keys: with Weir a
// Service that bears one, which is validated and audited; in its log alone, and
// with etcd, the bare value. Both are spoken to over TLS by the same client, gRPC's,
// with a connection for 16 clients, and the clients are spread over the members.
//
// Each system is started anew for each round, with all its members, and loaded
// by few clients first, then by more; rounds alternate between the systems, so
// that whatever else the machine does hits all of them alike. The table shows
// the median of the rounds. Flushes are those of the disk, by whomever: all
// members' of the system that is loaded, and one for several calls of fsync
// that wait at the same time. CPU is all members' and, behind the plus, that of
// the clients, which share the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// settings are the flags.
type settings struct {
	measure.Settings
	length       time.Duration
	sizes, loads []int // members, clients
	dir          string
}

func main() { measure.Main("bench/raft", run) }

func run(ctx context.Context, args []string) error {
	s := settings{sizes: []int{1, 3}, loads: []int{1, 16, 64, 256}}
	flags := flag.NewFlagSet("raft", flag.ContinueOnError)
	s.Define(flags, 3, "systems")
	flags.DurationVar(&s.length, "for", 3*time.Second, "how long, each time")
	flags.StringVar(&s.dir, "dir", "", "a directory on the disk to use; empty: that of temporary files")
	flags.Func("members", "how many members, such as 1,3 (the default)", numbers(&s.sizes))
	flags.Func("clients", "how many clients, such as 1,16,64,256 (the default)", numbers(&s.loads))
	if done, err := s.Parse(flags, args); done || err != nil {
		return err
	}
	if s.length <= 0 {
		return errors.New("-for must be more than 0")
	}
	return compare(ctx, s)
}

// numbers reads a list of numbers above 0.
func numbers(into *[]int) func(string) error {
	return func(text string) error {
		*into = nil
		for part := range strings.SplitSeq(text, ",") {
			n, err := strconv.Atoi(part)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is not a number above 0", part)
			}
			*into = append(*into, n)
		}
		return nil
	}
}

func compare(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp(s.dir, "weir-bench-raft-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	results := table{}
	for _, members := range s.sizes {
		without := map[string]bool{}
		for round := range s.Rounds {
			for _, system := range systems {
				if !s.Wanted(system.name) || without[system.name] {
					continue
				}
				p := place{filepath.Join(dir, fmt.Sprintf("%s-%d-%d", system.short(), members, round)), members}
				err := s.load(ctx, system, p, results)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					fmt.Fprintf(os.Stderr, "bench/raft: without %s of %d: %v\n", system.name, members, err)
					without[system.name] = true
				}
			}
		}
	}
	results.print(os.Stdout)
	return nil
}
