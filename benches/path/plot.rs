//! The results as a picture: a bar for each carrier, by path and load, as high as its ratio to the floor is.

use std::fmt::Write as _;

use crate::results::{Results, Row};

const BAR_HEIGHT: usize = 16;
const GROUP_GAP: usize = 12;
const LEFT: usize = 170;
const BARS_WIDTH: f64 = 520.0;
const WIDTH: usize = 900;
const TOP: usize = 56;
/// Of floor, gateway, gateway with a filter.
const COLOURS: [&str; 3] = ["#9aa5b1", "#2f6f9f", "#d08a3c"];

/// An SVG picture of the CPU time per packet.
pub(crate) fn svg(results: &Results) -> String {
    let groups: Vec<&[Row]> = results.rows.chunks(COLOURS.len()).collect();
    let group_height = BAR_HEIGHT * COLOURS.len() + GROUP_GAP;
    let height = TOP + groups.len() * group_height + GROUP_GAP;
    let longest = results.rows.iter().map(|row| row.ratio).fold(1.0, f64::max);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">CPU time per packet, as ratio to a bare relay</text>\n"
    );
    for (index, (row, colour)) in results.rows.iter().zip(COLOURS).enumerate() {
        let x = LEFT + index * 170;
        write!(
            svg,
            "<rect x=\"{x}\" y=\"28\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"38\">{}</text>\n",
            x + 18,
            row.carrier
        )
        .unwrap();
    }
    for (index, group) in groups.iter().enumerate() {
        let top = TOP + index * group_height;
        let middle = top + group_height / 2;
        let name = format!("{}, {}", group[0].path, group[0].load());
        writeln!(svg, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{name}</text>", LEFT - 10).unwrap();
        for (place, (row, colour)) in group.iter().zip(COLOURS).enumerate() {
            let y = top + place * BAR_HEIGHT;
            let width = BARS_WIDTH * row.ratio / longest;
            write!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{}\">{:.2} µs, {:.2} x</text>\n",
                BAR_HEIGHT - 2,
                f64::from(u16::try_from(LEFT).unwrap()) + width + 6.0,
                y + BAR_HEIGHT - 5,
                row.micros,
                row.ratio
            )
            .unwrap();
        }
    }
    svg + "</svg>\n"
}
