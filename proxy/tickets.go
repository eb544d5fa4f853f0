package proxy

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

// ticketAge is how long tickets are made with one key. They are good for at
// least as long again.
const ticketAge = 12 * time.Hour

// tickets are the keys of session tickets: random, in memory alone, and new ones
// every ticketAge, so that who takes a machine today cannot read what TLS 1.2
// sent yesterday. They outlive generations, and each listener and set of trusted
// authorities has its own, made of one secret: a session that was begun on other
// terms cannot be taken up.
type tickets struct {
	mu      sync.Mutex
	secrets [2][32]byte // the one in use, and the one before it
	since   time.Time   // when the one in use was made
	turn    int64       // counts changes
}

func newTickets() *tickets {
	t := &tickets{}
	rand.Read(t.secrets[0][:])
	rand.Read(t.secrets[1][:])
	return t
}

// refresh gives a listener the keys that are due.
func (t *tickets) refresh(l *secureListener, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() {
		t.since, t.turn = now, 1
	}
	if now.Sub(t.since) >= ticketAge {
		t.secrets[1] = t.secrets[0]
		rand.Read(t.secrets[0][:])
		t.since = now
		t.turn++
	}
	if l.turn == t.turn {
		return
	}
	l.turn = t.turn
	keys := make([][32]byte, len(t.secrets))
	for i, secret := range t.secrets {
		keys[i] = deriveTicketKey(secret, l.terms)
	}
	l.config.SetSessionTicketKeys(keys)
	if l.quic != nil {
		l.quic.SetSessionTicketKeys(keys)
	}
}

func deriveTicketKey(secret [32]byte, of terms) [32]byte {
	key, err := hkdf.Key(sha256.New, secret[:], of.trust[:], "weir session tickets for "+of.hostname, 32)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return [32]byte(key)
}
