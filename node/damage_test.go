package node

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// What a disk has damaged is refused by the name of its file, and left as it is for
// whoever looks into it; but for the state, which the log makes anew.
func TestDamagedFilesAreRefusedByName(t *testing.T) {
	s := newSeveral(t)
	s.begin("a", func(sc *ServerConfig) { sc.Bootstrap = true })
	s.running["a"].ready()
	s.put("a", "a", "one")
	_, operator := s.services("a", "a")
	backup := filepath.Join(t.TempDir(), "backup")
	writeBackup(t, operator, backup)
	s.running["a"].stop()
	recovered := recoverFromCopy(t, s.dirs["a"], backup)

	flip := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
	cut := func(data []byte) []byte { return data[:len(data)/2] }
	for _, c := range []struct {
		what, dir, file string
		damage          func([]byte) []byte
		want            string // "": it starts all the same
	}{
		{"a bit of the log", s.dirs["a"], "raft/log/*.seg", flipIn(64), "raft/log"},
		{"a bit of a snapshot", recovered, "raft/snapshots/*/state.bin", flip, "snapshot"},
		{"half a snapshot", recovered, "raft/snapshots/*/state.bin", cut, "snapshot"},
		{"half a keyring", s.dirs["a"], "keyring", cut, "keyring"},
		{"half a certificate", s.dirs["a"], "identity/cert.pem", cut, "identity/cert.pem"},
		{"half a key", s.dirs["a"], "identity/key.pem", cut, "identity/key.pem"},
		{"half of the roots", s.dirs["a"], "identity/ca.pem", cut, "identity/ca.pem"},
		{"a bit of the state", s.dirs["a"], "state/state.db", flip, ""},
		{"half of the state", s.dirs["a"], "state/state.db", cut, ""},
		{"half of the roster", s.dirs["a"], "raft/roster", cut, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(c.dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(dir, "keyring"), 0o600); err != nil {
				t.Fatal(err)
			}
			file := theOne(t, dir, c.file)
			damaged := damage(t, file, c.damage)
			sc := &ServerConfig{Name: "a", Node: freeport.Address(t), Admin: freeport.Address(t)}
			r := run(t, Config{Data: dir, Server: sc})
			if c.want == "" {
				r.ready()
				return
			}
			r.failed(c.want)
			if now, err := os.ReadFile(file); err != nil || !slices.Equal(now, damaged) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}

	for name, change := range map[string]func([]byte) []byte{"flipped": flip, "cut": cut, "nothing": func([]byte) []byte { return nil }} {
		t.Run("a backup that is "+name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), name+".backup")
			data, err := os.ReadFile(backup)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			copyFile(t, filepath.Join(s.dirs["a"], "keyring"), filepath.Join(dir, "keyring"))
			err = Recover(RecoverConfig{Data: dir, Name: "a", From: file})
			if err == nil || !strings.Contains(err.Error(), file) {
				t.Errorf("got %v, want the name of the file", err)
			}
			if err := Recover(RecoverConfig{Data: dir, Name: "a", From: backup}); err != nil {
				t.Errorf("with the whole one: %v", err)
			}
		})
	}
}

// flipIn changes a bit near the beginning, where something was written.
func flipIn(at int) func([]byte) []byte {
	return func(data []byte) []byte { data[at] ^= 1; return data }
}

func damage(t *testing.T, file string, change func([]byte) []byte) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data = change(data)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

// theOne is the file that a pattern names.
func theOne(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) == 0 {
		var all []string
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error { all = append(all, path); return nil })
		t.Fatalf("%s is not there: %v", pattern, all)
	}
	return found[0]
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func writeBackup(t *testing.T, operator weirv1connect.ClusterServiceClient, file string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := operator.Backup(ctx, &weirv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var data []byte
	for {
		m, err := stream.Receive()
		if err != nil {
			break
		}
		data = append(data, m.GetChunk()...)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// recoverFromCopy is the directory of a server that begins with a backup.
func recoverFromCopy(t *testing.T, of, backup string) string {
	t.Helper()
	dir := t.TempDir()
	copyFile(t, filepath.Join(of, "keyring"), filepath.Join(dir, "keyring"))
	if err := Recover(RecoverConfig{Data: dir, Name: "a", From: backup}); err != nil {
		t.Fatal(err)
	}
	return dir
}
