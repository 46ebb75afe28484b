// Measures the page in each frame, and writes what it found as JSON.
addEventListener('load', () => {
    const measure = frame => {
        const page = frame.contentDocument, view = frame.contentWindow;
        const all = (selector, root = page) => [...root.querySelectorAll(selector)];
        const size = element => {
            const box = element.getBoundingClientRect();
            return [box.width, box.height];
        };
        const what = node => {
            const name = node.getAttribute ? `.${node.getAttribute('class')}` : '';
            return node.nodeName + `${name} "${node.textContent.replace(/\s+/g, ' ')}"`.slice(0, 60);
        };
        // Everything is looked at, also what a reader would have to open.
        all('details').forEach(details => { details.open = true; });

        const overflow = [];
        const inside = (node, box, holder) => {
            let place = node;
            if (node.nodeType == Node.TEXT_NODE) {
                place = page.createRange();
                place.selectNodeContents(node);
            }
            const {left, right, width} = place.getBoundingClientRect();
            if (width && (left < box.left - 1 || right > box.right + 1)) {
                const by = Math.max(box.left - left, right - box.right);
                overflow.push(`${what(node)} is out of ${what(holder)} by ${by}`);
            }
        };
        const holds = holder => {
            const box = holder.getBoundingClientRect();
            all('*', holder).forEach(element => inside(element, box, holder));
            const texts = page.createTreeWalker(holder, NodeFilter.SHOW_TEXT);
            while (texts.nextNode()) inside(texts.currentNode, box, holder);
        };
        // Cards, charts with their labels, and the cells of tables.
        all('.tile, figure, .query, .scroll, .columns table, pre, details, .measures > div')
            .forEach(holds);
        all('.chart svg, th, td, .badge, li').forEach(holds);

        const scrolling = all('*').filter(element => element.scrollWidth > element.clientWidth + 1
            && view.getComputedStyle(element).overflowX != 'visible');
        const gap = legend => {
            const chart = legend.parentElement.querySelector('svg');
            return chart.getBoundingClientRect().top - legend.getBoundingClientRect().bottom;
        };
        return {
            width: view.innerWidth,
            scrollWidth: page.documentElement.scrollWidth,
            overflow,
            scrolling: scrolling.map(what),
            gaps: all('.legend').map(gap).filter(height => height > 16),
            charts: all('.chart svg').map(size),
            areas: all('.chart polygon').map(size),
            cells: all('.heat tbody td').length,
            rows: all('tbody tr').length,
            paper: view.getComputedStyle(page.body).backgroundColor,
        };
    };
    const measured = [...document.querySelectorAll('iframe')].map(measure);
    document.querySelector('pre').textContent = JSON.stringify(measured);
});
