package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// maxRun bounds the life of a connection.
const maxRun = 10 * time.Minute

// conn is one keep-alive connection of the load by HTTP/1.1. It asks for a list
// of things in turn.
type conn struct {
	net.Conn
	r        *bufio.Reader
	requests [][]byte
	at       int
}

func newHTTP1(c net.Conn, requests [][]byte, at int) (*conn, error) {
	// No run takes as long; it is for a proxy that does not answer.
	if err := c.SetDeadline(time.Now().Add(maxRun)); err != nil {
		return nil, err
	}
	return &conn{c, newReader(c), requests, at}, nil
}

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReaderSize(c, 4096) }

func (c *conn) ask(context.Context) error {
	request := c.requests[c.at]
	if c.at++; c.at == len(c.requests) {
		c.at = 0
	}
	return c.get(request)
}

// get sends a request and reads the answer, which must be 200 with a length.
func (c *conn) get(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if len(line) < 12 || string(line[9:12]) != "200" {
				return fmt.Errorf("answer %q", line)
			}
			continue
		}
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte{':'}); bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("an answer without content-length")
	}
	_, err := c.r.Discard(length)
	return err
}

func getRequest(address, host string) []byte {
	if host == "" {
		host = address
	}
	return fmt.Appendf(nil, "GET /books/17?page=2 HTTP/1.1\r\nHost: %s\r\nUser-Agent: weir-bench\r\nAccept: */*\r\n\r\n", host)
}

func hostName(i int) string { return fmt.Sprintf("host-%d.example", i) }

// readAnswer reads an answer with a body of so many bytes, without a copy.
func readAnswer(c net.Conn, buffer []byte, size int64) (read int64, err error) {
	have := 0
	head := -1
	for head < 0 {
		n, err := c.Read(buffer[have:])
		if err != nil {
			return 0, err
		}
		have += n
		head = bytes.Index(buffer[:have], []byte("\r\n\r\n"))
	}
	if !bytes.HasPrefix(buffer, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answer %q", buffer[:min(head, 80)])
	}
	for read = int64(have - head - 4); read < size; {
		n, err := c.Read(buffer[:min(int64(len(buffer)), size-read)])
		if read += int64(n); err != nil {
			return read, err
		}
	}
	return read, nil
}
