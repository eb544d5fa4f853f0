package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
)

// foundersOf are the servers that found a cluster together, and how they speak:
// each tells the others its hello over the node port, again and again.
type foundersOf struct {
	*identity.Founders
	identity *identity.Identity
	// self tells this process from others under whatever address it is found.
	self string
}

const (
	helloPath   = "/weir.v1.Founders/Hello"
	founderName = "Weir-Founder"
	maxHello    = 64 << 10
	// helloEvery is how often a founder speaks to one that it knows of.
	helloEvery = 300 * time.Millisecond
	// foundersMayLag is how long one may not answer before that is told.
	foundersMayLag = 15 * time.Second
	helloTimeout   = 5 * time.Second
)

// helloRefused is what a founder has answered to a hello that it does not take.
type helloRefused string

func (e helloRefused) Error() string { return string(e) }

// foundTogether waits until as many servers as are expected have agreed to
// found a cluster.
func (s *server) foundTogether(p *process, sc ServerConfig, b *beginning) error {
	var err error
	s.keyring, err = identity.ReadKeyring(identity.LocateKeyring(s.dir))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("servers that found a cluster together know each other by the cluster's key: make it once (weir cluster keys new FILE), and give each a copy as %s",
			identity.LocateKeyring(s.dir))
	}
	if err != nil {
		return err
	}
	if err := s.foundOn(sc, b); err != nil {
		return err
	}
	s.port.Handle(b.founders)
	s.servePort(p)
	p.log.Info("waiting for the other founders", "expected", sc.BootstrapExpect, "known", sc.Join)
	ctx, cancel := context.WithCancel(p.ctx)
	speaking := make(chan struct{})
	go func() {
		defer close(speaking)
		b.founders.speak(ctx, s, sc.Join)
	}()
	agreed, err := b.founders.Agreed(p.ctx)
	cancel()
	<-speaking
	if err != nil {
		return err
	}
	for _, m := range agreed {
		b.found = append(b.found, cluster.Member{Name: m.Name, Address: m.Address})
	}
	return nil
}

// foundOn takes up a founding where it stands.
func (s *server) foundOn(sc ServerConfig, b *beginning) error {
	founding, err := identity.NewFounding(s.keyring, sc.Name)
	if err != nil {
		return err
	}
	founders, err := identity.NewFounders(filepath.Join(s.dir, foundersFile), identity.Founder{Name: sc.Name, Address: s.nodeAddress},
		max(sc.BootstrapExpect, 1))
	if err != nil {
		return err
	}
	s.identity.Found(founding)
	b.founders = &foundersOf{Founders: founders, identity: s.identity, self: rand.Text()}
	s.founders = b.founders
	return nil
}

// speak tells all founders that are known of what this one knows, until ctx
// ends.
func (f *foundersOf) speak(ctx context.Context, s *server, addresses []string) {
	said, begun := map[string]string{}, time.Now()
	for {
		for _, address := range slices.Concat(addresses, f.Others()) {
			err := f.speakTo(ctx, s, address)
			what, due := "", false
			var refused helloRefused
			switch {
			case err == nil || ctx.Err() != nil:
			case nodeport.WrongPeer(err) || errors.As(err, &refused):
				what, due = err.Error(), true
			default: // servers are not all started at once
				what, due = "it does not answer", time.Since(begun) > foundersMayLag
			}
			if due && what != said[address] {
				s.log.Warn("a founder cannot be spoken to yet", "address", address, "error", err)
				said[address] = what
			} else if what == "" {
				said[address] = ""
			}
		}
		select {
		case <-time.After(helloEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (f *foundersOf) speakTo(ctx context.Context, s *server, address string) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	link, err := s.dialer.Link(ctx, address, s.identity.ClientTLS)
	if err != nil {
		return err
	}
	defer link.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+helloPath, bytes.NewReader(f.Hello()))
	if err != nil {
		return err
	}
	req.Header.Set(founderName, f.self)
	res, err := link.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxHello))
	if err != nil {
		return err
	}
	switch {
	case res.Header.Get(founderName) == f.self:
		return nil // this founder itself
	case res.StatusCode != http.StatusOK:
		return helloRefused(bytes.TrimSpace(data))
	case res.TLS == nil:
		return nil // it will speak itself
	}
	id, err := s.identity.Verify(res.TLS.PeerCertificates)
	if err != nil {
		return err
	}
	if !id.Founding() {
		return nil
	}
	return f.Hear(id.Name, data)
}

// ServeHTTP answers a founder's hello.
func (f *foundersOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(founderName, f.self)
	if r.URL.Path != helloPath {
		http.Error(w, "the cluster is being founded: come again", http.StatusServiceUnavailable)
		return
	}
	if r.Header.Get(founderName) == f.self {
		return
	}
	var id identity.ID
	err := errors.New("it shows no certificate")
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		id, err = f.identity.Verify(r.TLS.PeerCertificates)
	}
	if err != nil || !id.Founding() {
		http.Error(w, fmt.Sprintf("only founders say hello: %v", err), http.StatusForbidden)
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHello))
	if err == nil {
		err = f.Hear(id.Name, data)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	_, _ = w.Write(f.Hello()) // who does not take it asks again
}

// settle waits until every founder has a certificate of the cluster, and then
// ends the founding. Until ctx ends there is nothing more to do.
func (f *foundersOf) settle(ctx context.Context, s *server) error {
	for !f.allIn(ctx, s) {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.identity.Founded()
	if err := f.Forget(); err != nil {
		s.log.Warn("the founding is over, but its file stays", "error", err)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *foundersOf) allIn(ctx context.Context, s *server) bool {
	nodes, err := s.registrar.Nodes(ctx)
	if err != nil {
		return false
	}
	have := map[string]bool{}
	for _, n := range nodes {
		if n.ID.Role == identity.RoleServer {
			have[n.ID.Name] = true
		}
	}
	// Not what all agreed on: after a restart nobody says it again, and there is
	// a log already, so they did.
	founders := f.Committed()
	for _, m := range founders {
		if !have[m.Name] {
			return false
		}
	}
	return len(founders) > 0
}
