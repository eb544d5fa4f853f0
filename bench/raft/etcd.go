package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirmesh/weir/bench/measure"
)

// etcd runs as it comes, with TLS to clients and among members.
type etcd struct {
	processes []*measure.Process
	clients   []string // addresses
}

func startEtcd(ctx context.Context, p place) (cluster, error) {
	binary, err := lookUp("etcd")
	if err != nil {
		return nil, err
	}
	e := new(etcd)
	var peers, names []string
	for i := range p.members {
		client, peer, err := twoPorts()
		if err != nil {
			return nil, err
		}
		e.clients = append(e.clients, fmt.Sprintf("127.0.0.1:%d", client))
		peers = append(peers, fmt.Sprintf("https://127.0.0.1:%d", peer))
		names = append(names, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range p.members {
		process, err := measure.Start(filepath.Join(p.dir, fmt.Sprint("m", i)), nil, binary,
			"--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(p.dir, fmt.Sprint("m", i)),
			"--listen-client-urls", "https://"+e.clients[i], "--advertise-client-urls", "https://"+e.clients[i],
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(names, ","), "--auto-tls", "--peer-auto-tls", "--log-level", "error")
		if err != nil {
			e.stop()
			return nil, err
		}
		e.processes = append(e.processes, process)
	}
	for i, process := range e.processes {
		if err := process.Until(ctx, func() error { return e.serves(ctx, i) }); err != nil {
			e.stop()
			return nil, err
		}
	}
	return e, nil
}

func (e *etcd) serves(ctx context.Context, member int) error {
	c, err := e.connect(member)
	if err != nil {
		return err
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return c.put(ctx, "ready", 0)
}

func (e *etcd) stop() { stopAll(e.processes) }

func (e *etcd) used() time.Duration { return usedBy(e.processes) }

func stopAll(processes []*measure.Process) {
	for _, p := range processes {
		p.Stop()
	}
}

// usedBy is the processor time of members; 0 where it is not known.
func usedBy(processes []*measure.Process) (all time.Duration) {
	for _, p := range processes {
		used, err := p.CPU()
		if err != nil {
			return 0
		}
		all += used
	}
	return all
}

func (e *etcd) connect(member int) (connection, error) {
	// Its certificate is of its own making: who it is does not matter here.
	secure := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	c, err := grpc.NewClient(e.clients[member], grpc.WithTransportCredentials(secure))
	if err != nil {
		return nil, err
	}
	return etcdConnection{c}, nil
}

type etcdConnection struct{ *grpc.ClientConn }

// put is a call of etcdserverpb.KV/Put, whose request has key and value as its
// first two fields. That is all of etcd's client that is needed.
func (c etcdConnection) put(ctx context.Context, key string, number int64) error {
	request := protowire.AppendTag(nil, 1, protowire.BytesType)
	request = protowire.AppendString(request, key)
	request = protowire.AppendTag(request, 2, protowire.BytesType)
	request = protowire.AppendString(request, numbered(number))
	var answer []byte
	return c.Invoke(ctx, "/etcdserverpb.KV/Put", &request, &answer, grpc.ForceCodec(encoded{}))
}

func (c etcdConnection) close() { c.Close() }

// numbered is a value of the usual length that no other write has.
func numbered(number int64) string {
	digits := fmt.Sprint(number)
	return digits + value[len(digits):]
}

// encoded is a codec of messages that are encoded already.
type encoded struct{}

func (encoded) Name() string                       { return "proto" }
func (encoded) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (encoded) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }

// lookUp finds a program beside this one's sources or on the machine.
func lookUp(name string) (string, error) {
	path := filepath.Join(".bin", name)
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return filepath.Abs(path)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not installed (make bench-peers)", name)
	}
	return path, nil
}

func twoPorts() (a, b int, err error) {
	if a, err = measure.FreePort(); err != nil {
		return 0, 0, err
	}
	b, err = measure.FreePort()
	return a, b, err
}
