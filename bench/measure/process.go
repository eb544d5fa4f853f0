package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is a child and all that it starts, in a process group of its own.
type Process struct {
	// Log is the file with what it printed.
	Log string

	cmd  *exec.Cmd
	done chan struct{} // closed once it ended
}

// Workers is how many threads or processes everyone works with.
const Workers = "2"

// Start runs a command; what it prints goes to a file, logBase with ".log".
func Start(logBase string, env []string, name string, args ...string) (*Process, error) {
	log, err := os.Create(logBase + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// Two workers for everyone; for those written in Go this is how they are told.
	cmd.Env = append(append(os.Environ(), "GOMAXPROCS="+Workers), env...)
	// SIGTERM, for a master that is killed leaves its workers behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(name), err)
	}
	p := &Process{cmd: cmd, Log: log.Name(), done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	return p, nil
}

// Stop ends the process and what it started, by force if it must.
func (p *Process) Stop() {
	if p == nil {
		return
	}
	group := -p.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-p.done
}

// Until waits for a condition, at most half a minute and as long as the
// process lives.
func (p *Process) Until(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		last := ready()
		if last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended: %s", p.LastWords())
		case <-ctx.Done():
			return fmt.Errorf("it does not serve: %w; %s", last, p.LastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// LastWords is the end of what the process printed.
func (p *Process) LastWords() string {
	printed, _ := os.ReadFile(p.Log)
	printed = bytes.TrimSpace(printed)
	if len(printed) > 600 {
		printed = printed[len(printed)-600:]
	}
	return string(printed)
}

// Ports of members and proxies lie below those that the kernel gives to clients:
// one of theirs could take it before whoever it is for listens.
const firstPort, endPort = 20000, 32000

// FreePort is one on which nobody listens now, neither on TCP nor on UDP.
func FreePort() (int, error) {
	at := rand.IntN(endPort - firstPort)
	for i := range endPort - firstPort {
		port := firstPort + (at+i)%(endPort-firstPort)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", address)
		if err := tcp.Close(); err != nil {
			return 0, err
		}
		if err == nil {
			return port, udp.Close()
		}
	}
	return 0, fmt.Errorf("no port from %d on is free", firstPort)
}

// clockTick is the unit of times in /proc: USER_HZ, 100 on every Linux.
const clockTick = time.Second / 100

// CPU is the user and system time that the process and its descendants have
// used.
func (p *Process) CPU() (time.Duration, error) {
	stats, err := readStats()
	if err != nil {
		return 0, err
	}
	root, ok := stats[p.cmd.Process.Pid]
	if !ok {
		return 0, errors.New("it has ended")
	}
	used := time.Duration(root.ended) * clockTick
	for pid := range stats {
		for at := pid; at > 1; at = stats[at].parent {
			if at == p.cmd.Process.Pid {
				used += clock(pid, stats[pid])
				break
			}
		}
	}
	return used, nil
}

// Memory is what the process and its descendants have in memory, in bytes; what
// they share counts for each.
func (p *Process) Memory() (sum int64, err error) {
	stats, err := readStats()
	if err != nil {
		return 0, err
	}
	for pid := range stats {
		for at := pid; at > 1; at = stats[at].parent {
			if at == p.cmd.Process.Pid {
				sum += int64(stats[pid].pages) * int64(os.Getpagesize())
				break
			}
		}
	}
	if sum == 0 {
		return 0, errors.New("it has ended")
	}
	return sum, nil
}

// Used is the user and system time that this process has used.
func Used() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// clock is a process' CPU clock, which is finer than the ticks that /proc counts
// it in.
func clock(pid int, s stat) time.Duration {
	const ofProcess = 2 // the clock's kind, in the lowest bits of its number
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|ofProcess, &t); err != nil {
		return time.Duration(s.ticks) * clockTick
	}
	return time.Duration(t.Nano())
}

// stat is what /proc/PID/stat says of a process: its parent, its own time,
// that of its children which have ended, and its memory.
type stat struct {
	parent       int
	ticks, ended int64
	pages        int64 // in memory
}

func readStats() (map[int]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	stats := map[int]stat{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has just ended
		}
		if stats[pid], err = parseStat(string(line)); err != nil {
			return nil, fmt.Errorf("read stat of process %d: %w", pid, err)
		}
	}
	return stats, nil
}

func parseStat(line string) (s stat, err error) {
	// The name may hold anything, blanks and parentheses too.
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 22 {
		return s, fmt.Errorf("%q is too short", line)
	}
	number := func(field int) int64 {
		n, e := strconv.ParseInt(fields[field], 10, 64)
		err = errors.Join(err, e)
		return n
	}
	s.parent = int(number(1))
	s.ticks = number(11) + number(12)
	s.ended = number(13) + number(14)
	s.pages = number(21)
	return s, err
}
