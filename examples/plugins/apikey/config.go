package main

import (
	"cmp"
	"errors"
	"fmt"
)

type config struct {
	// Header bears the key.
	Header string `json:"header"`
	// ConsumerHeader tells the service whose key it was.
	ConsumerHeader string `json:"consumerHeader"`
	// Hide keeps the key from the service.
	Hide bool  `json:"hide"`
	Keys []key `json:"keys"`
}

// key is a consumer's, in the clear or as the SHA-256 of it in hexadecimal.
type key struct {
	Consumer string `json:"consumer"`
	Key      string `json:"key"`
	SHA256   string `json:"sha256"`
}

func (c *config) Default() {
	c.Header, c.ConsumerHeader, c.Hide = "x-api-key", "x-consumer", true
}

func (c *config) Validate() error {
	if c.Header == "" || c.ConsumerHeader == "" {
		return errors.New("header and consumerHeader must not be empty")
	}
	if len(c.Keys) == 0 {
		return errors.New("keys: there are none, so nobody could pass")
	}
	for i, k := range c.Keys {
		switch {
		case k.Consumer == "":
			return fmt.Errorf("keys[%d].consumer: missing", i)
		case (k.Key == "") == (k.SHA256 == ""):
			return fmt.Errorf("keys[%d] (%s): give either key or sha256", i, cmp.Or(k.Consumer, "?"))
		}
	}
	return nil
}
