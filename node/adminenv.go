package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/durable"
)

// leaveAdminEnv leaves what the command line needs to speak to this cluster, in
// a file to be sourced. The first start makes the first token for it; of servers
// that found a cluster together each has one of its own, and so has one that began
// with a backup. A file that someone took away stays away; one that is there is kept
// up to date.
func (s *server) leaveAdminEnv(ctx context.Context, path string) error {
	env, err := readAdminEnv(path)
	if err != nil {
		return fmt.Errorf("leave admin.env: %w", err)
	}
	write := func(token string) error {
		roots, err := filepath.Abs(s.identity.RootsPath())
		if err != nil {
			return err
		}
		return durable.WriteFile(path, []byte(adminEnv(s.adminAddress, token, roots)))
	}
	switch {
	case s.records.empty(identity.TableAdminToken), s.founders != nil && len(env) == 0, s.has(recoveredFile) && len(env) == 0:
		// The file comes first: a token that nobody was told is good for nothing.
		err = s.registrar.Tokens().CreateAdmin(ctx, "root", write)
	case env["WEIR_TOKEN"] != "":
		err = write(env["WEIR_TOKEN"])
	}
	if err != nil {
		return fmt.Errorf("leave admin.env: %w", err)
	}
	return nil
}

func adminEnv(address, token, roots string) string {
	return fmt.Sprintf("WEIR_ADMIN=%s\nWEIR_TOKEN=%s\nWEIR_CA=%s\nexport WEIR_ADMIN WEIR_TOKEN WEIR_CA\n",
		quote(address), quote(token), quote(roots))
}

// quote makes a word of the shell of a value, and leaves alone what is one.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:[]@%+,", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// readAdminEnv returns what the file assigns, nothing when it is not there.
func readAdminEnv(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	env := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			env[name] = value
		}
	}
	return env, nil
}
