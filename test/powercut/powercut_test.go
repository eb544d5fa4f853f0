//go:build linux

package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// role makes the test binary play another part than running tests: whatever
// maps files of a disk must not be the process that serves it.
const role = "POWERCUT_TEST_ROLE"

func TestMain(m *testing.M) {
	parts := map[string]func(dir string) error{"mapping": useMapping, "database": useDatabase}
	if part := parts[os.Getenv(role)]; part != nil {
		if err := part(os.Args[1]); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// part prepares the test binary in another part, on a directory.
func part(ctx context.Context, t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, dir)
	cmd.Env = append(os.Environ(), role+"="+name)
	return cmd
}

// A step is one thing that a program does to a directory.
type step func(dir string) error

func write(path, data string) step { return open(path, os.O_CREATE|os.O_TRUNC, data, nil) }

func appendTo(path, data string) step { return open(path, os.O_APPEND, data, nil) }

func writeSync(path, data string) step {
	return open(path, os.O_CREATE|os.O_TRUNC, data, (*os.File).Sync)
}

func open(path string, flags int, data string, then func(*os.File) error) step {
	return func(dir string) error {
		f, err := os.OpenFile(filepath.Join(dir, path), os.O_WRONLY|flags, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteString(data); err != nil || then == nil {
			return err
		}
		return then(f)
	}
}

func syncOf(path string) step {
	return func(dir string) error {
		f, err := os.Open(filepath.Join(dir, path))
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	}
}

func rename(from, to string) step {
	return func(dir string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
}

func mkdir(path string) step {
	return func(dir string) error { return os.Mkdir(filepath.Join(dir, path), 0o700) }
}

func remove(path string) step {
	return func(dir string) error { return os.Remove(filepath.Join(dir, path)) }
}

func truncate(path string, size int64) step {
	return func(dir string) error { return os.Truncate(filepath.Join(dir, path), size) }
}

func link(from, to string) step {
	return func(dir string) error { return os.Link(filepath.Join(dir, from), filepath.Join(dir, to)) }
}

func symlink(target, at string) step {
	return func(dir string) error { return os.Symlink(target, filepath.Join(dir, at)) }
}

func fallocate(path string, mode uint32, offset, size int64) step {
	return open(path, 0, "", func(f *os.File) error { return unix.Fallocate(int(f.Fd()), mode, offset, size) })
}

func fdatasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// tree is every file below a directory and what it holds; directories end in a slash.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
			return err
		case d.IsDir():
			found[path+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		found[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

type files = map[string]string

func TestWhatACutLeaves(t *testing.T) {
	tests := []struct {
		name    string
		safe    []step // then the whole disk is synced
		steps   []step
		before  files // nil: the same as strict
		strict  files
		journal files // nil: the same as strict
	}{
		{name: "a file that was not synced is gone",
			steps: []step{write("f", "new")}, before: files{"f": "new"}, strict: files{}},
		{name: "a synced file goes with its name",
			steps: []step{writeSync("f", "new")}, before: files{"f": "new"}, strict: files{}, journal: files{"f": "new"}},
		{name: "a synced file in a synced directory stays",
			steps: []step{writeSync("f", "new"), syncOf(".")}, strict: files{"f": "new"}},
		{name: "a synced name without its data is an empty file",
			steps: []step{write("f", "new"), syncOf(".")}, before: files{"f": "new"}, strict: files{"f": ""}},
		{name: "what was appended since is lost",
			safe: []step{write("f", "old")}, steps: []step{appendTo("f", "+new")}, before: files{"f": "old+new"}, strict: files{"f": "old"}},
		{name: "what was overwritten since comes back",
			safe: []step{write("f", "old")}, steps: []step{write("f", "new")}, before: files{"f": "new"}, strict: files{"f": "old"}},
		{name: "fsync keeps",
			safe: []step{write("f", "old")}, steps: []step{appendTo("f", "+new"), syncOf("f")}, strict: files{"f": "old+new"}},
		{name: "fdatasync keeps data and size",
			safe: []step{write("f", "old")}, steps: []step{open("f", os.O_APPEND, "+new", fdatasync)}, strict: files{"f": "old+new"}},
		{name: "O_SYNC keeps",
			safe: []step{write("f", "old")}, steps: []step{open("f", os.O_APPEND|unix.O_SYNC, "+new", nil)}, strict: files{"f": "old+new"}},
		{name: "O_DSYNC keeps",
			safe: []step{write("f", "old")}, steps: []step{open("f", os.O_APPEND|unix.O_DSYNC, "+new", nil)}, strict: files{"f": "old+new"}},
		{name: "sync of one file is not sync of another",
			safe: []step{write("f", "old"), write("g", "old")}, steps: []step{write("f", "new"), write("g", "new"), syncOf("g")},
			before: files{"f": "new", "g": "new"}, strict: files{"f": "old", "g": "new"}},

		{name: "a file cut short grows again",
			safe: []step{write("f", "old")}, steps: []step{truncate("f", 1)}, before: files{"f": "o"}, strict: files{"f": "old"}},
		{name: "a file cut short stays short when synced",
			safe: []step{write("f", "old")}, steps: []step{truncate("f", 1), syncOf("f")}, strict: files{"f": "o"}},
		{name: "cut short and grown, it is filled with zeroes",
			safe: []step{write("f", "old")}, steps: []step{truncate("f", 1), truncate("f", 3), syncOf("f")}, strict: files{"f": "o\x00\x00"}},
		{name: "a file grown by fallocate",
			safe: []step{write("f", "old")}, steps: []step{fallocate("f", 0, 0, 5), syncOf("f")}, strict: files{"f": "old\x00\x00"}},
		{name: "a hole punched",
			safe:  []step{write("f", "old")},
			steps: []step{fallocate("f", unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 1, 1), syncOf("f")}, strict: files{"f": "o\x00d"}},

		{name: "a rename goes back",
			safe: []step{write("f", "old")}, steps: []step{rename("f", "g")}, before: files{"g": "old"}, strict: files{"f": "old"}},
		{name: "a rename stays when its directory is synced",
			safe: []step{write("f", "old")}, steps: []step{rename("f", "g"), syncOf(".")}, strict: files{"g": "old"}},
		{name: "a file replaced by the book",
			safe: []step{write("f", "old")}, steps: []step{writeSync("f.tmp", "new"), rename("f.tmp", "f"), syncOf(".")}, strict: files{"f": "new"}},
		{name: "a file replaced without sync of the directory",
			safe: []step{write("f", "old")}, steps: []step{writeSync("f.tmp", "new"), rename("f.tmp", "f")},
			before: files{"f": "new"}, strict: files{"f": "old"}, journal: files{"f": "old", "f.tmp": "new"}},
		{name: "a file replaced without sync of the file",
			safe: []step{write("f", "old")}, steps: []step{write("f.tmp", "new"), rename("f.tmp", "f"), syncOf(".")},
			before: files{"f": "new"}, strict: files{"f": ""}},
		{name: "a rename between directories is whole by either's sync",
			safe: []step{mkdir("a"), mkdir("b"), write("a/f", "old")}, steps: []step{rename("a/f", "b/f"), syncOf("b")},
			strict: files{"a/": "", "b/": "", "b/f": "old"}},
		{name: "what a rename needs is made safe with it",
			safe: []step{mkdir("a"), mkdir("b")}, steps: []step{writeSync("a/f", "new"), rename("a/f", "b/f"), syncOf("b"), syncOf("a")},
			strict: files{"a/": "", "b/": "", "b/f": "new"}},

		{name: "a removed file comes back",
			safe: []step{write("f", "old")}, steps: []step{remove("f")}, before: files{}, strict: files{"f": "old"}},
		{name: "a removed file stays away when its directory is synced",
			safe: []step{write("f", "old")}, steps: []step{remove("f"), syncOf(".")}, strict: files{}},
		{name: "a file removed and made again",
			safe: []step{write("f", "old")}, steps: []step{remove("f"), writeSync("f", "new"), syncOf(".")}, strict: files{"f": "new"}},

		{name: "a directory that is synced itself goes with its name",
			steps: []step{mkdir("d"), writeSync("d/f", "new"), syncOf("d")}, before: files{"d/": "", "d/f": "new"}, strict: files{},
			journal: files{"d/": "", "d/f": "new"}},
		{name: "a directory synced with its parent stays",
			steps: []step{mkdir("d"), writeSync("d/f", "new"), syncOf("d"), syncOf(".")}, strict: files{"d/": "", "d/f": "new"}},
		{name: "a parent's sync does not reach into a directory",
			steps: []step{mkdir("d"), writeSync("d/f", "new"), syncOf(".")}, before: files{"d/": "", "d/f": "new"}, strict: files{"d/": ""},
			journal: files{"d/": "", "d/f": "new"}},
		{name: "a removed directory comes back with what was in it",
			safe: []step{mkdir("d"), write("d/f", "old")}, steps: []step{remove("d/f"), remove("d")}, before: files{}, strict: files{"d/": "", "d/f": "old"}},

		{name: "a second name",
			safe: []step{write("f", "old")}, steps: []step{link("f", "g"), syncOf("."), write("g", "new"), syncOf("f")}, strict: files{"f": "new", "g": "new"}},
		{name: "a symbolic link",
			safe: []step{write("f", "old")}, steps: []step{symlink("f", "g"), syncOf("."), symlink("f", "h")},
			before: files{"f": "old", "g": "old", "h": "old"}, strict: files{"f": "old", "g": "old"}},
	}
	for _, journal := range []bool{false, true} {
		disk := New(t, Options{LoseAll: true, Journal: journal})
		for i, test := range tests {
			t.Run(fmt.Sprintf("%s/journal=%v", test.name, journal), func(t *testing.T) {
				dir := filepath.Join(disk.Dir(), fmt.Sprint(i))
				do(t, disk.Dir(), mkdir(fmt.Sprint(i)))
				do(t, dir, test.safe...)
				syncAll(t, disk.Dir())
				do(t, dir, test.steps...)
				if test.before == nil {
					test.before = test.strict
				}
				if diff := cmp.Diff(test.before, tree(t, dir)); diff != "" {
					t.Errorf("before the cut (-want +got):\n%s", diff)
				}
				disk.Cut()
				disk.Mount()
				want := test.strict
				if journal && test.journal != nil {
					want = test.journal
				}
				if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
					t.Errorf("after the cut (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func do(t *testing.T, dir string, steps ...step) {
	t.Helper()
	for i, step := range steps {
		if err := step(dir); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

func syncAll(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		return syncOf(".")(path)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestACutFailsASyncThatIsUnderWay(t *testing.T) {
	disk := New(t, Options{LoseAll: true, SyncTime: time.Hour})
	f, err := os.Create(filepath.Join(disk.Dir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	failed := make(chan error, 1)
	go func() { failed <- f.Sync() }()
	disk.Cut()
	if err := <-failed; err == nil {
		t.Error("the sync succeeded")
	}
}

func TestAnOpenFileFailsAfterACut(t *testing.T) {
	disk := New(t, Options{LoseAll: true})
	f, err := os.Create(filepath.Join(disk.Dir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	report := disk.Cut()
	if report.LostNames != 1 {
		t.Errorf("the report is %+v, want one name lost", report)
	}
	if _, err := f.WriteString("late"); err == nil {
		t.Error("a write after the cut succeeded")
	}
	if err := f.Sync(); err == nil {
		t.Error("a sync after the cut succeeded")
	}
	if err := write("g", "new")(disk.Dir()); !errors.Is(err, unix.EROFS) {
		t.Errorf("a new file without power: %v, want a read-only file system", err)
	}
	disk.Mount()
	if err := f.Sync(); err == nil {
		t.Error("a sync of a file of before the cut succeeded")
	}
}

func TestAMappingSeesWritesAndIsKeptByMsync(t *testing.T) {
	disk := New(t, Options{LoseAll: true})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if out, err := part(ctx, t, "mapping", disk.Dir()).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	disk.Cut()
	disk.Mount()
	want := strings.Repeat("A", pageSize) + "B" + strings.Repeat("\x00", pageSize-1)
	if got := tree(t, disk.Dir())["f"]; got != want {
		t.Errorf("after the cut the file is %.3q…, %d bytes", got, len(got))
	}
}

// useMapping leaves two pages: one written and synced, one mapped and synced
// up to its first byte.
func useMapping(dir string) error {
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(2*pageSize), f.Sync(), syncOf(".")(dir)); err != nil {
		return err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, 2*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(mapped)
	for range 100 {
		for _, c := range []byte("XYA") {
			if _, err := f.WriteAt(bytes.Repeat([]byte{c}, pageSize), 0); err != nil {
				return err
			}
			if mapped[0] != c || mapped[pageSize-1] != c {
				return fmt.Errorf("wrote %c, the mapping has %c", c, mapped[0])
			}
		}
	}
	mapped[pageSize] = 'B'
	back := make([]byte, 1)
	if _, err := f.ReadAt(back, pageSize); err != nil || back[0] != 'B' {
		return fmt.Errorf("read %q of what was mapped: %w", back, err)
	}
	if err := unix.Msync(mapped, unix.MS_SYNC); err != nil {
		return err
	}
	mapped[pageSize+1] = 'C' // lost
	return nil
}

// TestVictim is run by the test below, in a process of its own.
func TestVictim(t *testing.T) {
	if os.Getenv(role) != "victim" {
		t.Skip("a part of the test of what is left behind")
	}
	fmt.Println("victim", New(t, Options{}).Dir())
	select {}
}

func TestAMountOfAKilledTestIsSweptAway(t *testing.T) {
	New(t, Options{}) // skips where the victim would
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.CommandContext(t.Context(), self, "-test.run=^TestVictim$")
	victim.Env = append(os.Environ(), role+"=victim", "TMPDIR="+t.TempDir())
	stdout, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	if _, err := fmt.Fscanf(stdout, "victim %s\n", &dir); err != nil {
		t.Fatal(err)
	}
	victim.Process.Kill()
	victim.Wait()
	if _, err := os.ReadDir(dir); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("the mount of a killed test: %v, want not connected", err)
	}
	New(t, Options{})
	if _, err := os.ReadDir(dir); err != nil {
		t.Errorf("the mount of a killed test is still there: %v", err)
	}
}
