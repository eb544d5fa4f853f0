package main

import (
	"context"
	"errors"
	"path/filepath"

	weirlog "github.com/weirmesh/weir/cluster"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// logAlone is Weir's log and the store that it feeds, without an API.
type logAlone struct {
	store *store.Store
	node  *weirlog.Node
}

func startLog(ctx context.Context, p place) (cluster, error) {
	if p.members != 1 {
		return nil, errors.New("members in one process would share its processors, which no cluster does")
	}
	s, err := store.Open(store.Config{Dir: filepath.Join(p.dir, "store")})
	if err != nil {
		return nil, err
	}
	n, err := weirlog.Start(weirlog.Config{Name: "m0", Dir: filepath.Join(p.dir, "log")}, s)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	l := &logAlone{s, n}
	if err := n.Ready(ctx); err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

func (l *logAlone) stop() {
	l.node.Close()
	l.store.Close()
}

func (l *logAlone) connect(int) (connection, error) { return l, nil }
func (l *logAlone) close()                          {}

func (l *logAlone) put(ctx context.Context, key string, number int64) error {
	_, err := l.node.Propose(ctx, &weirv1.Command{Action: &weirv1.Command_PutValue{PutValue: &weirv1.PutValue{
		Table: "bench", Key: key, Value: []byte(numbered(number)),
	}}})
	return err
}
