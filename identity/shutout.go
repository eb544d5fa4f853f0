package identity

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/identity/record"
	"github.com/weirmesh/weir/internal/durable"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// A proxy that was removed is refused by the servers at once. Other proxies would go on to
// believe its certificate until that has run out; so they are told the keys of those that
// were removed, or have lost their name to another, for as long as a certificate for one
// of them may be good.

// ErrShutOut is the cause when a peer's certificate is good, and its key is not.
var ErrShutOut = errors.New("the node was removed, or its name is another's now")

const (
	// outlives is for how long after a key was given up a certificate for it may be
	// good, by whichever clock.
	outlives = LeafLifetime + clockSkew
	// maxShutOut bounds the list; those that run out first are dropped first.
	maxShutOut = 4096
	// maxFormer bounds what is remembered of one name.
	maxFormer = 16

	shutOutFile = "shut-out"
)

// formerKey bore a name before.
type formerKey struct {
	KeyHash []byte    `json:"keyHash"`
	Until   time.Time `json:"until"`
}

// givenUp are the keys that bore the name and do so no more, once it is given to another.
func (n *nodeRecord) givenUp(now time.Time) []formerKey {
	if n == nil {
		return nil
	}
	former := slices.DeleteFunc(slices.Clone(n.Former), func(f formerKey) bool { return !f.Until.After(now) })
	if last := (formerKey{n.KeyHash, n.since(now).Add(outlives)}); len(n.KeyHash) > 0 && last.Until.After(now) {
		former = append(former, last)
	}
	return former[max(0, len(former)-maxFormer):]
}

// since is when the name's key was given up, if it is now.
func (n *nodeRecord) since(now time.Time) time.Time {
	if n.Removed.IsZero() {
		return now
	}
	return n.Removed
}

// hadBorne tells whether a key was given up under the name.
func (n *nodeRecord) hadBorne(keyHash []byte) bool {
	return n != nil && (!n.Removed.IsZero() && n.bears(keyHash) ||
		slices.ContainsFunc(n.Former, func(f formerKey) bool { return bytes.Equal(f.KeyHash, keyHash) }))
}

// OwnTables is what a member knows of the records by itself.
type OwnTables interface {
	Values(table string) iter.Seq2[string, []byte]
}

// ShutOut are the keys of proxies that are none any more, as this member's own state has
// it. A record that cannot be read is left out, and named by the error.
func ShutOut(own OwnTables, now time.Time) (*weirv1.ShutOut, error) {
	list, errs := shutOut{}, []error(nil)
	for key, value := range own.Values(TableNode) {
		if strings.HasPrefix(key, string(RoleServer)+"/") {
			continue
		}
		n, err := record.Decode[nodeRecord](value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
			continue
		}
		former := n.Former
		if !n.Removed.IsZero() {
			former = n.givenUp(now)
		}
		for _, f := range former {
			if n.Removed.IsZero() && n.bears(f.KeyHash) {
				continue // it has the name again
			}
			list.add(f.KeyHash, f.Until)
		}
	}
	return list.tidy(now).proto(), errors.Join(errs...)
}

// shutOut is until when a key is not believed.
type shutOut map[[sha256.Size]byte]time.Time

// add tells whether the key is new.
func (s shutOut) add(keyHash []byte, until time.Time) (fresh bool) {
	if len(keyHash) != sha256.Size {
		return false
	}
	key := [sha256.Size]byte(keyHash)
	was, known := s[key]
	if !known || until.After(was) {
		s[key] = until
	}
	return !known
}

// tidy drops what has run out, and what is too much.
func (s shutOut) tidy(now time.Time) shutOut {
	for key, until := range s {
		if !until.After(now) {
			delete(s, key)
		}
	}
	for _, key := range s.sorted()[:max(0, len(s)-maxShutOut)] {
		delete(s, key)
	}
	return s
}

// sorted are the keys, those first that run out first.
func (s shutOut) sorted() [][sha256.Size]byte {
	keys := make([][sha256.Size]byte, 0, len(s))
	for key := range s {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b [sha256.Size]byte) int {
		return cmp.Or(s[a].Compare(s[b]), bytes.Compare(a[:], b[:]))
	})
	return keys
}

func (s shutOut) proto() *weirv1.ShutOut {
	m := new(weirv1.ShutOut)
	for _, key := range s.sorted() {
		m.Keys = append(m.Keys, &weirv1.ShutOutKey{Sha256: key[:], Until: timestamppb.New(s[key])})
	}
	return m
}

// text is one key a line, and until when, in seconds.
func (s shutOut) text() []byte {
	var out bytes.Buffer
	for _, key := range s.sorted() {
		fmt.Fprintf(&out, "%s %s\n", hex.EncodeToString(key[:]), s[key].UTC().Format(time.RFC3339))
	}
	return out.Bytes()
}

func parseShutOut(data []byte) (shutOut, error) {
	s := shutOut{}
	for lines, n := bufio.NewScanner(bytes.NewReader(data)), 1; ; n++ {
		if !lines.Scan() {
			return s, lines.Err()
		}
		key, until, _ := strings.Cut(lines.Text(), " ")
		hash, bad := hex.DecodeString(key)
		at, err := time.Parse(time.RFC3339, until)
		if err := errors.Join(bad, err); err != nil {
			return s, fmt.Errorf("line %d: %w", n, err)
		}
		if len(hash) != sha256.Size || len(s) == maxShutOut {
			return s, fmt.Errorf("line %d: no SHA-256, or one of too many", n)
		}
		s.add(hash, at)
	}
}

// openShutOut reads what the node was told before. What is damaged is told again by the
// servers, so that much of it as can be read is good.
func (i *Identity) openShutOut() {
	data, err := os.ReadFile(filepath.Join(i.dir, shutOutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	known, bad := parseShutOut(data)
	if err := errors.Join(err, bad); err != nil {
		i.shutOutDamage = fmt.Errorf("read keys that were shut out: %w", err)
	}
	i.shutOut.Store(&known)
}

// ShutOutDamage is what is wrong with the keys that the node has on disk; nil: nothing.
func (i *Identity) ShutOutDamage() error { return i.shutOutDamage }

// TakeShutOut takes in keys that are not to be believed, and tells whether any is new.
// What is known stays until it runs out, whatever a server says that lags behind. It is in
// force when this returns. It is on disk as well if keep says so and there is no error; what
// is not is written the next time. One goroutine at a time calls it.
func (i *Identity) TakeShutOut(m *weirv1.ShutOut, keep bool) (fresh bool, err error) {
	now := time.Now()
	next := shutOut{}
	if known := i.shutOut.Load(); known != nil {
		for key, until := range *known {
			next[key] = until
		}
	}
	for _, k := range m.GetKeys() {
		until := k.GetUntil().AsTime()
		if most := now.Add(outlives + clockSkew); until.After(most) {
			until = most
		}
		if until.After(now) && next.add(k.GetSha256(), until) {
			fresh = true
		}
	}
	next.tidy(now)
	i.shutOut.Store(&next)
	i.shutOutUnkept = i.shutOutUnkept || fresh
	if !keep || !i.shutOutUnkept {
		return fresh, nil
	}
	if err := durable.WriteFile(filepath.Join(i.dir, shutOutFile), next.text()); err != nil {
		return fresh, fmt.Errorf("keep keys that were shut out: %w", err)
	}
	i.shutOutUnkept = false
	return fresh, nil
}

// IsShutOut tells whether a certificate is for a key that is not to be believed.
func (i *Identity) IsShutOut(leaf *x509.Certificate) bool {
	known := i.shutOut.Load()
	if known == nil || len(*known) == 0 {
		return false
	}
	hash, err := keyHash(leaf.PublicKey)
	if err != nil {
		return false // of a kind that no node has
	}
	until, is := (*known)[[sha256.Size]byte(hash)]
	return is && time.Now().Before(until)
}

// verifyProxy says who a peer of the mesh is.
func (i *Identity) verifyProxy(chain []*x509.Certificate) (ID, error) {
	id, err := i.Verify(chain)
	if err == nil && i.IsShutOut(chain[0]) {
		err = fmt.Errorf("verify peer %s of %s: %w", id.Name, id, ErrShutOut)
	}
	return id, err
}
