"""How the labeling page looks: a dark reading room, the image beside the findings.

Label Studio's own panels and paddings give way, so that the image takes the height of the window;
they are named by the classes that server 1.23.2 uses. No `>`: Label Studio escapes it.
"""

from __future__ import annotations


def layout(kind: str, body: str, hint: str) -> str:
    """The whole page as XML; `kind` is the task's, `body` the blocks, `hint` the last line."""
    select = "true" if "segmentation" in kind else "false"  # there is nothing else to select
    return _LAYOUT.format(style=_STYLE, kind=kind, body=body, hint=hint, select=select)


_STYLE = """
.lsf-sidepanels { padding: 0 !important; }
.lsf-sidepanels__wrapper { display: none !important; }
.lsf-main-view, .lsf-main-view__annotation { padding: 0 !important; background: #000 !important; }
.rl { display: flex; height: calc(100vh - 98px); background: #000; }
.rl-image { flex: 1 1 auto; min-width: 0; padding: 4px 0 0 4px; }
.rl-image .lsf-toolbar { top: 110px; }
.rl-panel { flex: 0 0 332px; overflow-y: auto; padding: 10px 12px; background: #15191e; }
.rl-panel h4 { margin: 10px 6px 2px !important; font-size: 13px; font-weight: 400; }
.rl-panel h4, .rl-panel .lsf-hint { color: #9aa5b1 !important; line-height: 18px; }
.rl-panel .lsf-choices { display: grid; gap: 6px; margin: 0 0 1px !important; }
.rl-multi_label .lsf-choices { grid-template-columns: 1fr 122px; }
.rl-panel .rl-other { margin-top: 12px; padding-top: 8px; border-top: 1px solid #333c46; }
.rl-panel .rl-other .lsf-choices { grid-template-columns: 1fr; gap: 0; }
.rl-drawn .lsf-choices { grid-template-columns: 1fr 1fr; }
.rl-panel .lsf-choice { line-height: 18px !important; min-width: 0; border-radius: 5px; }
.rl-panel .lsf-choice:hover { background: #232a32; }
.rl-panel .lsf-choice:has(.ant-checkbox-checked) { background: #1d4f8c; }
.rl-multi_label .lsf-choice + .lsf-choice span span { font-weight: 400; }
.rl-multi_label .lsf-choice + .lsf-choice:has(.ant-checkbox-checked) { background: #6b5214; }
.rl-multi_label .lsf-choice + .lsf-choice .ant-checkbox-checked .ant-checkbox-inner {
  background: #d9a420; }
.rl .rl-drawn .lsf-choice + .lsf-choice:has(.ant-checkbox-checked) { background: #6b5214; }
.rl .rl-drawn .lsf-choice + .lsf-choice .ant-checkbox-checked .ant-checkbox-inner {
  background: #d9a420; }
.rl .rl-other .lsf-choice:has(.ant-checkbox-checked) { background: #7c2d2d; }
.rl .rl-other .ant-checkbox-checked .ant-checkbox-inner { background: #e06666; }
.rl-exclusive .lsf-choices { gap: 1px; }
.rl-exclusive .rl-answer .lsf-choice:last-child { margin-top: 18px; }
.rl-exclusive .rl-answer .lsf-choice:last-child:has(.ant-checkbox-checked) {
  background: #7c2d2d; }
.rl-exclusive .lsf-choice:last-child .ant-checkbox-checked .ant-checkbox-inner {
  background: #e06666; }
.rl-panel .lsf-choice__checkbox { display: flex; align-items: center; padding: 5px 6px; }
.rl-panel .lsf-choice__checkbox span { top: 0; color: #e3e7ec; font-size: 14px; }
.rl-panel .lsf-choice__checkbox .ant-checkbox + span { flex: 1; padding: 0 0 0 8px; }
.rl-panel .ant-checkbox .ant-checkbox-inner { background: #15191e; }
.rl-panel .ant-checkbox .ant-checkbox-inner { border-color: #77828e !important; }
.rl-panel .ant-checkbox-checked .ant-checkbox-inner { background: #4c9bff; }
.rl-panel .lsf-choice__checkbox .lsf-hint { float: right; top: 1px; font-size: 11px; }
.rl-panel .lsf-labels { margin: 0 0 8px !important; }
.rl-panel .lsf-label, .rl-panel .lsf-label span { color: #e3e7ec !important; }
.rl-panel .lsf-label_selected, .rl-panel .lsf-label_selected span { color: #000 !important; }
"""
_LAYOUT = """<View className="rl rl-{kind}">
<Style>{style}</Style>
<View className="rl-image">
<Image name="image" value="$image" zoom="true" zoomControl="true" brightnessControl="true"
 contrastControl="true" defaultZoom="fit" horizontalAlignment="center" verticalAlignment="center"
 maxHeight="calc(100vh - 106px)" selectionControl="{select}" smoothing="true"/>
</View>
<View className="rl-panel">
{body}
<Header value="{hint}" size="6"/>
</View>
</View>"""
