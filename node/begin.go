package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/durable"
	"github.com/weirmesh/weir/nodeapi"
)

// validateBeginning: there is one way to begin. Founders of one cluster need to
// find each other, so --bootstrap-expect goes with --join.
func (s ServerConfig) validateBeginning() error {
	var errs []error
	if s.Bootstrap && (s.BootstrapExpect != 0 || len(s.Join) > 0) {
		errs = append(errs, errors.New("a server begins in one way: with --bootstrap alone, or with --bootstrap-expect, or with --join"))
	}
	if s.BootstrapExpect < 0 {
		errs = append(errs, fmt.Errorf("a cluster cannot be founded by %d servers", s.BootstrapExpect))
	}
	if s.BootstrapExpect > 1 && len(s.Join) == 0 {
		errs = append(errs, fmt.Errorf("to found a cluster of %d servers, say where they are with --join", s.BootstrapExpect))
	}
	for _, address := range s.Join {
		errs = append(errs, checkAddress("join", address))
	}
	if s.Advertise != "" {
		errs = append(errs, checkAddress("advertise", s.Advertise))
	}
	return errors.Join(errs...)
}

// beginning is how a server comes to be a member.
type beginning struct {
	// existing: it is one already, and has a log.
	existing bool
	// found are those who found the cluster with it, itself among them.
	found []cluster.Member
	// joins: it has an identity, and is yet to be let in by the others.
	joins bool
	// founders are those it founds the cluster with, nil if nobody.
	founders *foundersOf
}

// The files that tell how far a beginning has come.
const (
	// joiningFile is there from before a server gets its identity until it is let
	// in. Without it, a server that has an identity and no log has lost its log.
	joiningFile  = "joining"
	foundersFile = "founders"
)

func (s *server) has(name string) bool {
	_, err := os.Lstat(filepath.Join(s.dir, name))
	return !errors.Is(err, fs.ErrNotExist)
}

// begin finds out who this server is, and lets others in. A server that has
// begun goes on, whatever the flags say.
func (s *server) begin(p *process, sc ServerConfig) (*beginning, error) {
	b := new(beginning)
	var err error
	switch {
	case s.identity.Joined() && s.has(joiningFile):
		b.joins = true
	case s.identity.Joined():
		b.existing = true
	case s.has("raft"), sc.BootstrapExpect == 1, sc.Bootstrap:
	case sc.BootstrapExpect > 1:
		return b, s.foundTogether(p, sc, b)
	case len(sc.Join) > 0:
		b.joins = true
		if err := s.joinAnew(p, sc); err != nil {
			return nil, err
		}
	default:
		p.log.Info("nothing says how this new server begins: it founds a cluster of its own", "name", sc.Name)
	}
	if id := s.identity.ID(); s.identity.Joined() && (id.Name != sc.Name || id.Role != identity.RoleServer) {
		return nil, fmt.Errorf("the data directory %s is that of %s, not of a server named %s", s.dir, id, sc.Name)
	}
	if s.identity.Joined() {
		s.keyring, err = identity.ReadKeyring(identity.LocateKeyring(s.dir))
	} else {
		s.keyring, err = identity.OpenKeyring(identity.LocateKeyring(s.dir))
		b.found = []cluster.Member{{Name: sc.Name, Address: s.nodeAddress}}
	}
	if err != nil {
		return nil, err
	}
	if s.has(foundersFile) {
		if err := s.foundOn(sc, b); err != nil {
			return nil, err
		}
	}
	s.servePort(p)
	return b, nil
}

// joinAnew gets a new server an identity, and the cluster's key.
func (s *server) joinAnew(p *process, sc ServerConfig) error {
	if sc.Token == "" {
		return errors.New("to join, give a token (weir join-token create --role server)")
	}
	others, err := s.others(p.ctx, sc.Join)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(s.dir, joiningFile), nil); err != nil {
		return err
	}
	return nodeapi.Join(p.ctx, s.identity, nodeapi.JoinConfig{
		Servers: others, Token: sc.Token, Role: identity.RoleServer, Name: sc.Name,
		Keyring: identity.LocateKeyring(s.dir), Logger: p.log.With("part", "join"), Dialer: s.dialer,
	})
}

// enter has the others let this server in, if it is yet to be.
func (b *beginning) enter(ctx context.Context, s *server, sc ServerConfig) error {
	if !b.joins {
		return nil
	}
	if len(sc.Join) == 0 {
		return errors.New("start server: it has not been let in yet: say where the others are, with --join")
	}
	others, err := s.others(ctx, sc.Join)
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	if err := s.cluster.Join(ctx, others); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	if err := os.Remove(filepath.Join(s.dir, joiningFile)); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	return durable.SyncDir(s.dir)
}

// enrol gives a server its first certificate that did not get it by joining.
func (b *beginning) enrol(ctx context.Context, s *server) error {
	if !s.has(recoveredFile) {
		return s.registrar.EnrolServer(ctx, s.identity, s.name, s.names)
	}
	// It stands for one whose disk is lost, key and all.
	csr, err := s.identity.Request()
	if err != nil {
		return err
	}
	issued, err := s.registrar.Enrol(ctx, identity.RoleServer, s.name, csr, s.names)
	if err != nil {
		return err
	}
	return s.identity.Install(issued)
}

// settle ends the founding once all founders are members.
func (b *beginning) settle(p *process, s *server) {
	if b.founders != nil {
		p.run("founding", func(ctx context.Context) error { return b.founders.settle(ctx, s) })
	}
}
