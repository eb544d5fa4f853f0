package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
)

// bodySize is what the upstream answers with.
const bodySize = 512

// runUpstream is the upstream process: it answers every request alike, and
// does so little that the proxies are what is measured. It takes requests
// without bodies, which is what the load sends.
func runUpstream(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("upstream wants two addresses")
	}
	calls := make(chan error, 1)
	go func() { calls <- serveGRPC(ctx, args[1]) }()
	defer func() { <-calls }()
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		bodySize, `{"book":"`+strings.Repeat("x", bodySize-len(`{"book":""}`))+`"}`)
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		serving.Go(func() {
			closed := context.AfterFunc(ctx, func() { c.Close() })
			defer closed()
			defer c.Close()
			_ = answerAll(c, answer) // the client went away
		})
	}
}

// bytesPath is where answers are as long as the path says.
const bytesPath = "/bytes/"

// answerAll answers each head that arrives.
func answerAll(c net.Conn, answer []byte) error {
	r := bufio.NewReaderSize(c, 16<<10)
	long := int64(0)
	for first := true; ; {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first {
			if _, path, ok := bytes.Cut(line, []byte(bytesPath)); ok {
				digits, _, _ := bytes.Cut(path, []byte{' '})
				if long, err = strconv.ParseInt(string(digits), 10, 64); err != nil {
					return err
				}
			}
		}
		if first = len(bytes.TrimRight(line, "\r\n")) == 0; !first {
			continue
		}
		if long > 0 {
			err = answerLong(c, long)
			long = 0
		} else {
			_, err = c.Write(answer)
		}
		if err != nil {
			return err
		}
	}
}

var block = make([]byte, 256<<10)

func answerLong(c net.Conn, length int64) error {
	if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", length); err != nil {
		return err
	}
	for length > 0 {
		n, err := c.Write(block[:min(length, int64(len(block)))])
		if length -= int64(n); err != nil {
			return err
		}
	}
	return nil
}
