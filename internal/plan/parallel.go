package plan

import (
	"errors"
	"sync"
)

// spread has each worker do its part, one after the other, of what 0 … n-1 stand
// for: parts are contiguous, since neighbours are read fast. A worker ends with
// its first error.
func spread(workers, n int, do func(worker, i int) error) error {
	errs := make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w * n / workers; i < (w+1)*n/workers && errs[w] == nil; i++ {
				errs[w] = do(w, i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
