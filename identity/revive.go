package identity

import (
	"errors"
	"fmt"
	"time"

	"github.com/weirmesh/weir/identity/record"
)

// OwnRecords are the records as this member's own disk has them, however old.
type OwnRecords interface {
	Value(table, key string) ([]byte, bool)
}

// Revive gives a server a certificate out of its own state, with no leader and
// no majority: every server was off for longer than a certificate lives, or no
// majority is left to ask. Whoever has the cluster's keyring and its log could
// make any certificate anyway, so nothing is given away by that. A server that
// was removed, as far as it knows, does not come back in this way.
func Revive(own OwnRecords, keyring *Keyring, node *Identity, name string, names Names, lifetime time.Duration) error {
	authority, err := ownAuthority(own, keyring)
	if err != nil {
		return fmt.Errorf("revive server: %w", err)
	}
	id := ID{TrustDomain: authority.trustDomain, Role: RoleServer, Name: name}
	if value, ok := own.Value(TableNode, nodeKey(id)); ok {
		known, err := record.Decode[nodeRecord](value)
		if err == nil {
			err = known.check(id, node.keyHash())
		}
		if err != nil {
			return fmt.Errorf("revive server: %w", err)
		}
	}
	if err := issueTo(node, authority, id, names, lifetime); err != nil {
		return fmt.Errorf("revive server: %w", err)
	}
	return nil
}

func ownAuthority(own OwnRecords, keyring *Keyring) (*Authority, error) {
	sealed, ok := own.Value(TableAuthority, authorityKey)
	if !ok {
		return nil, errors.New("its own state holds no authority: it has to reach another server")
	}
	return OpenAuthority(keyring, sealed)
}

// CheckSealed tells whether a keyring opens what records have sealed, before
// they are put in the place of others.
func CheckSealed(own OwnRecords, keyring *Keyring) error {
	if _, ok := own.Value(TableAuthority, authorityKey); !ok {
		return nil
	}
	if _, err := ownAuthority(own, keyring); err != nil {
		return fmt.Errorf("open what is sealed in it: %w", err)
	}
	return nil
}
