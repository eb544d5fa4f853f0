package handover_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/handover"
)

// as says what this binary is when it was started by a test.
const as = "HANDOVER_TEST_AS"

func TestMain(m *testing.M) {
	switch os.Getenv(as) {
	case "":
		os.Exit(m.Run())
	case "ready":
		next()
	case "dies":
		os.Exit(3)
	case "hangs":
		time.Sleep(time.Hour)
	}
}

// next is a process that takes over a socket, and answers on it who it is.
func next() {
	i, err := handover.Inherited()
	if err != nil {
		panic(err)
	}
	l, err := i.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	if _, ok := os.LookupEnv("WEIR_HANDOVER"); ok || i.File("unknown") != nil {
		panic("it has more than it should")
	}
	lock := i.File("lock")
	if _, err := lock.WriteString("new"); err != nil {
		panic(err)
	}
	if err := i.Ready(); err != nil {
		panic(err)
	}
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(c, "%d\n", os.Getpid())
	c.Close()
}

func program() handover.Program {
	return handover.Program{Path: os.Args[0], Args: os.Args[:1]}
}

func TestHandOver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.CreateTemp(t.TempDir(), "lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	t.Setenv(as, "ready")
	pid, err := handover.Start(t.Context(), program(), map[string]handover.Socket{
		handover.SocketName("tcp", "127.0.0.1:0"): l.(*net.TCPListener), "lock": lock,
		"other": l.(*net.TCPListener),
	})
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // the socket stays open
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if said, err := bufio.NewReader(c).ReadString('\n'); err != nil || said != fmt.Sprintln(pid) {
		t.Errorf("got %q, %v; want %d", said, err, pid)
	}
	if wrote, err := os.ReadFile(lock.Name()); err != nil || string(wrote) != "new" {
		t.Errorf("the lock holds %q, %v", wrote, err)
	}
	if p, err := os.FindProcess(pid); err == nil {
		_, _ = p.Wait()
	}
}

// A process that does not become ready leaves nothing behind, and takes nothing
// away.
func TestNotReady(t *testing.T) {
	for how, want := range map[string]string{"dies": "ended before it was ready", "hangs": "deadline"} {
		t.Run(how, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			t.Setenv(as, how)
			ctx := t.Context()
			if how == "hangs" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
			}
			pid, err := handover.Start(ctx, program(), map[string]handover.Socket{"l": l.(*net.TCPListener)})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %v", err)
			}
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("it is there still: %v", err)
			}
			accepted := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, err = io.WriteString(c, "old")
					c.Close()
				}
				accepted <- err
			}()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if said, err := io.ReadAll(c); err != nil || string(said) != "old" {
				t.Errorf("got %q, %v", said, err)
			}
			if err := <-accepted; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNothingInherited(t *testing.T) {
	i, err := handover.Inherited()
	if i != nil || err != nil {
		t.Fatalf("got %v, %v", i, err)
	}
	l, err := i.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := i.Ready(); err != nil || i.File("lock") != nil {
		t.Error(err)
	}
}

// What stands in the environment may be anything.
func TestForeignInheritance(t *testing.T) {
	for _, list := range []string{"", "no", `{"a":1}`} {
		t.Setenv("WEIR_HANDOVER", list)
		if i, err := handover.Inherited(); err == nil || i != nil {
			t.Errorf("%q was taken for something", list)
		}
	}
}
