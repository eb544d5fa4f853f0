package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/mholt/acmez/v3/acme"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/identity/record"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Accounts are the cluster's accounts at authorities, kept as records.
type Accounts struct {
	records record.Store
	keyring *identity.Keyring
}

var _ identity.Sealed = (*Accounts)(nil)

// NewAccounts returns those that are in the records.
func NewAccounts(records record.Store, keyring *identity.Keyring) *Accounts {
	return &Accounts{records: records, keyring: keyring}
}

// table is where accounts are recorded.
const table = "acme-account"

type accountRecord struct {
	Directory string `json:"directory"`
	Email     string `json:"email,omitempty"`
	External  string `json:"external,omitempty"`
	Location  string `json:"location"`
	SealedKey []byte `json:"sealedKey"`
}

func accountKey(directory, email, external string) string {
	sum := sha256.Sum256([]byte(directory + "\n" + email + "\n" + external))
	return hex.EncodeToString(sum[:16])
}

func purpose(key string) string { return "acme account " + key }

// account returns the one to order with, made where there is none yet.
func (a *Accounts) account(ctx context.Context, client *acme.Client, spec *weirv1.Acme, hmac []byte) (acme.Account, error) {
	external := spec.GetExternalAccount().GetKeyId()
	key := accountKey(client.Directory, spec.GetEmail(), external)
	known, err := a.records.Get(ctx, table, key)
	if err != nil {
		return acme.Account{}, err
	}
	if known != nil {
		return a.open(key, known)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return acme.Account{}, err
	}
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: private}
	if spec.GetEmail() != "" {
		account.Contact = []string{"mailto:" + spec.GetEmail()}
	}
	if external != "" {
		binding := acme.EAB{KeyID: external, MACKey: base64.RawURLEncoding.EncodeToString(hmac)}
		if err := account.SetExternalAccountBinding(ctx, client, binding); err != nil {
			return acme.Account{}, err
		}
	}
	if account, err = client.NewAccount(ctx, account); err != nil {
		return acme.Account{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return acme.Account{}, err
	}
	defer clear(der)
	made := record.Encode(accountRecord{
		Directory: client.Directory, Email: spec.GetEmail(), External: external,
		Location: account.Location, SealedKey: a.keyring.Seal(purpose(key), der),
	})
	kept := made
	err = record.Update(ctx, a.records, table, key, func(was []byte) ([]byte, error) {
		kept = made
		if was != nil {
			kept = was // of two that began at once, one is enough
		}
		return kept, nil
	})
	if err != nil {
		return acme.Account{}, err
	}
	return a.open(key, kept)
}

func (a *Accounts) open(key string, value []byte) (acme.Account, error) {
	r, err := record.Decode[accountRecord](value)
	if err != nil {
		return acme.Account{}, err
	}
	der, err := a.keyring.Open(purpose(key), r.SealedKey)
	if err != nil {
		return acme.Account{}, fmt.Errorf("open its key: %w", err)
	}
	defer clear(der)
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return acme.Account{}, errors.New("its key cannot be read") // the cause may hold parts of it
	}
	signer, ok := private.(*ecdsa.PrivateKey)
	if !ok {
		return acme.Account{}, fmt.Errorf("its key is a %T", private)
	}
	return acme.Account{Status: acme.StatusValid, Location: r.Location, PrivateKey: signer, TermsOfServiceAgreed: true}, nil
}

// forgetIfGone drops an account that the authority says it does not have, so
// that the next order makes one.
func (a *Accounts) forgetIfGone(ctx context.Context, client *acme.Client, spec *weirv1.Acme, problem error) {
	var p acme.Problem
	if !errors.As(problem, &p) || p.Type != acme.ProblemTypeAccountDoesNotExist {
		return
	}
	key := accountKey(client.Directory, spec.GetEmail(), spec.GetExternalAccount().GetKeyId())
	_ = record.Update(ctx, a.records, table, key, func([]byte) ([]byte, error) { return nil, nil }) // or the order after the next one does
}

// SealedBy counts the keys of accounts by what has sealed them.
func (a *Accounts) SealedBy(ctx context.Context) (map[string]int, error) {
	count := map[string]int{}
	err := a.each(ctx, func(_ string, r *accountRecord, id string) error {
		count[id]++
		return nil
	})
	return count, err
}

// Reseal seals those keys anew that another key than the keyring's first has
// sealed.
func (a *Accounts) Reseal(ctx context.Context, k *identity.Keyring) error {
	return a.each(ctx, func(key string, r *accountRecord, id string) error {
		if id == k.ID() {
			return nil
		}
		der, err := k.Open(purpose(key), r.SealedKey)
		if err != nil {
			return err
		}
		defer clear(der)
		return record.Update(ctx, a.records, table, key, func(was []byte) ([]byte, error) {
			now, err := record.Decode[accountRecord](was)
			if err != nil || now == nil || !bytes.Equal(now.SealedKey, r.SealedKey) {
				return was, err // somebody else has dealt with it
			}
			now.SealedKey = k.Seal(purpose(key), der)
			return record.Encode(now), nil
		})
	})
}

func (a *Accounts) each(ctx context.Context, do func(key string, r *accountRecord, id string) error) error {
	entries, err := a.records.List(ctx, table)
	if err != nil {
		return err
	}
	for _, e := range entries {
		r, err := record.Decode[accountRecord](e.Value)
		if err != nil {
			return err
		}
		id, err := identity.SealedBy(r.SealedKey)
		if err == nil {
			err = do(e.Key, r, id)
		}
		if err != nil {
			return fmt.Errorf("the account at %s: %w", r.Directory, err)
		}
	}
	return nil
}
