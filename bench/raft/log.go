package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	weirlog "github.com/weirmesh/weir/cluster"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// logAlone is Weir's log and the stores that it feeds, without an API. All
// members are in this process and reach one another by TCP in the clear.
type logAlone []*logMember

// A logMember is one member, and a connection to it at the same time.
type logMember struct {
	store *store.Store
	node  *weirlog.Node
}

func startLog(ctx context.Context, p place) (cluster, error) {
	networks := make([]*network, p.members)
	founders := make([]weirlog.Member, p.members)
	for i := range networks {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		networks[i] = &network{fmt.Sprint("m", i), listener}
		founders[i] = weirlog.Member{Name: networks[i].name, Role: weirlog.Voter, Address: listener.Addr().String()}
	}
	var l logAlone
	for i := range networks {
		m, err := startMember(filepath.Join(p.dir, networks[i].name), founders, networks[i], founders[i])
		if err != nil {
			l.stop()
			return nil, err
		}
		l = append(l, m)
	}
	for _, m := range l {
		if err := m.node.Ready(ctx); err != nil {
			l.stop()
			return nil, err
		}
	}
	return l, nil
}

func startMember(dir string, founders []weirlog.Member, n *network, self weirlog.Member) (*logMember, error) {
	s, err := store.Open(store.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		return nil, err
	}
	node, err := weirlog.Start(weirlog.Config{
		Name: self.Name, Dir: filepath.Join(dir, "log"), Address: self.Address, Network: n, Found: founders,
	}, s)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &logMember{s, node}, nil
}

// used is nothing: the members' work is the clients' process'.
func (l logAlone) used() time.Duration { return 0 }

func (l logAlone) stop() {
	for _, m := range l {
		m.node.Close()
		m.store.Close()
	}
}

func (l logAlone) connect(member int) (connection, error) { return l[member], nil }

func (m *logMember) close() {}

func (m *logMember) put(ctx context.Context, key string, number int64) error {
	_, err := m.node.Propose(ctx, &weirv1.Command{Action: &weirv1.Command_PutValue{PutValue: &weirv1.PutValue{
		Table: "bench", Key: key, Value: []byte(numbered(number)),
	}}})
	return err
}

// A network carries the streams of one member: each begins with the name of
// whoever opened it, which is believed.
type network struct {
	name     string
	listener net.Listener
}

const maxName = 16

func (n *network) Dial(ctx context.Context, address, _ string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	name := make([]byte, maxName)
	copy(name, n.name)
	if _, err := conn.Write(name); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (n *network) Accept(ctx context.Context) (net.Conn, string, error) {
	stop := context.AfterFunc(ctx, func() { n.listener.Close() })
	defer stop()
	conn, err := n.listener.Accept()
	if err != nil {
		return nil, "", errors.Join(ctx.Err(), err)
	}
	name := make([]byte, maxName)
	if _, err := io.ReadFull(conn, name); err != nil {
		conn.Close()
		return nil, "", err
	}
	return conn, string(bytes.TrimRight(name, "\x00")), nil
}
